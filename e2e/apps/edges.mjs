// Node's own HTTP server at the edges of the protocol.
import { createServer } from 'node:http'
import { listen, name, order } from './lib.mjs'

async function body(req) {
  const parts = []
  for await (const b of req) parts.push(b)
  return Buffer.concat(parts).toString()
}

const together = []

const routes = {
  '/length': (req, res) => { // also for HEAD: the length without the body
    res.setHeader('Content-Length', 12)
    res.end(req.method === 'HEAD' ? undefined : 'twelve bytes')
  },
  '/chunked': (req, res) => {
    res.write('one, ')
    res.write('two, ')
    res.end('three')
  },
  '/no-content': (req, res) => { res.writeHead(204, { 'X-Kept': 'yes' }).end() },
  '/not-modified': (req, res) => {
    if (req.headers['if-none-match'] !== '"v1"') return res.writeHead(200, { ETag: '"v1"' }).end('version one')
    res.writeHead(304, { ETag: '"v1"' }).end()
  },
  '/trailers': (req, res) => {
    res.writeHead(200, { Trailer: 'X-Sum' })
    res.write('body, then ')
    res.addTrailers({ 'X-Sum': 'of-the-body' })
    res.end('trailers')
  },
  '/early-hints': (req, res) => {
    res.writeEarlyHints({ link: ['</style.css>; rel=preload; as=style', '</app.js>; rel=preload; as=script'] }, () => {
      res.writeProcessing()
      res.end('the page')
    })
  },
  '/until-close': (req, res) => { // neither a length nor chunks
    res.useChunkedEncodingByDefault = false
    res.removeHeader('Transfer-Encoding')
    res.writeHead(200, { Connection: 'close' })
    res.write('until ')
    res.end('the end')
  },
  '/echo': async (req, res) => {
    const got = await body(req)
    res.setHeader('Content-Type', 'application/json')
    res.end(JSON.stringify({ method: req.method, headers: req.headers, body: got, trailers: req.trailers }))
  },
  '/cookies': (req, res) => {
    res.setHeader('Set-Cookie', ['a=1; Path=/', 'b=2; HttpOnly'])
    res.setHeader('X-Latin', 'caf\xe9')
    res.end()
  },
  '/early-answer': (req, res) => { // does not wait for the body
    res.writeHead(413, { Connection: 'close' }).end('too large for me')
  },
  '/together': async (req, res) => { // answers once COUNT requests are there
    await body(req)
    together.push(res)
    if (together.length < Number(req.headers['x-count'])) return
    for (const r of together.splice(0)) r.end('all here')
  },
  '/die': (req) => { req.socket.destroy() },
}

async function handle(req, res) {
  res.setHeader('X-Instance', name)
  const route = routes[new URL(req.url, 'http://app').pathname]
  if (!route) return res.writeHead(404).end('nothing here')
  try {
    await route(req, res)
  } catch (err) { // the request broke off
    console.log('aborted', err.message)
  }
}

order('release', () => { for (const r of together.splice(0)) r.end('all there are') })

const server = createServer(handle)
server.on('checkContinue', (req, res) => {
  if (req.headers['x-refuse']) return res.writeHead(417, { Connection: 'close' }).end('not that')
  res.writeContinue()
  handle(req, res)
})
server.on('connection', () => console.log('connection'))
server.on('clientError', (err, socket) => {
  console.log('clientError', err.code)
  socket.destroy()
})
if (process.env.KEEP_ALIVE_MS) {
  server.keepAliveTimeout = Number(process.env.KEEP_ALIVE_MS)
  server.keepAliveTimeoutBuffer = 0 // newer versions of Node.js close a second later than they announce
}
listen(server)
