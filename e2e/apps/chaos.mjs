// An instance for runs under faults. With RECORD it says what it has seen: "seen ID" when it has read the head of a
// request, "done ID" when it gave the last byte of the answer away, "stalled FROM TO" (milliseconds since 1970) when its
// main thread stood still. Standard output is a pipe, to which Node.js writes at once: what an instance said before it
// was killed is known. With SESSIONS it has Socket.IO, too: "say" is answered by "heard".
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'
import { listen, name, order } from './lib.mjs'

const record = process.env.RECORD ? (...words) => console.log(...words) : () => {}
let slow = 0
let leaving = false
const streams = new Set()

const routes = {
  work(req, res, id) {
    setTimeout(() => res.end(`${name} did ${id}`), slow + Number(req.headers['x-ms'] ?? 0))
  },
  bytes(req, res) {
    res.end(Buffer.alloc(Number(req.headers['x-bytes']), name))
  },
  sum(req, res) {
    const hash = createHash('sha256')
    let length = 0
    req.on('data', (b) => { hash.update(b); length += b.length })
    req.on('end', () => {
      setTimeout(() => res.end(JSON.stringify({ length, sum: hash.digest('hex') })), slow + Number(req.headers['x-ms'] ?? 0))
    })
  },
  stream(req, res) {
    res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' }).flushHeaders()
    const n = Number(req.headers['x-events'])
    let i = 0
    const stream = {
      end(word) {
        clearInterval(timer)
        streams.delete(stream)
        res.end(`data: ${word}\n\n`)
      },
    }
    const timer = setInterval(() => { i < n ? res.write(`data: ${i++}\n\n`) : stream.end('end') }, 100)
    res.on('close', () => { clearInterval(timer); streams.delete(stream) })
    streams.add(stream)
    if (leaving) stream.end('bye')
  },
  health(req, res) { res.end('well') },
}

const server = createServer((req, res) => {
  const [, kind, id] = req.url.split('/')
  if (!Object.hasOwn(routes, kind)) { // some other program of the machine, or lb passed on what nobody sent
    console.log('stranger', req.headers['x-request-id'] ?? '-', req.method, req.url)
    return res.writeHead(404).end()
  }
  if (kind !== 'health') record('seen', id)
  res.on('finish', () => { if (kind !== 'health') record('done', id) })
  res.setHeader('X-Instance', name)
  routes[kind](req, res, id)
})
server.on('clientError', (err, socket) => socket.destroy())

let io
if (process.env.SESSIONS) {
  const { Server } = await import('socket.io')
  io = new Server(server, { serveClient: false, destroyUpgrade: false, pingInterval: 1000, pingTimeout: 30000 })
  io.engine.on('headers', (headers) => { headers['X-Instance'] = name })
  io.on('connection', (socket) => {
    socket.on('say', (text) => socket.emit('heard', text))
    if (leaving) socket.disconnect(true)
  })
}

const sockets = new WebSocketServer({ noServer: true })
server.on('upgrade', (req, socket, head) => {
  if (io && req.url.startsWith('/socket.io/')) return // its own listener has it
  sockets.handleUpgrade(req, socket, head, (ws) => sockets.emit('connection', ws, req))
})
sockets.on('connection', (socket) => {
  socket.send(name)
  if (leaving) socket.close(1001, 'bye') // it came by a connection that was busy when the listener closed
  socket.on('message', (data, binary) => socket.send(data, { binary }))
  socket.on('error', () => {}) // a cut connection: 'close' follows
})

// The graceful stop that people write: no new connections, end what is open, exit when all of it has ended.
process.on('SIGTERM', () => {
  leaving = true
  server.close(() => process.exit(0))
  console.log('leaving')
  for (const s of [...streams]) s.end('bye')
  for (const s of sockets.clients) s.close(1001, 'bye')
  io?.disconnectSockets(true)
  setTimeout(() => { for (const s of sockets.clients) s.terminate() }, 5000).unref()
})

order('slow', (ms) => { slow = Number(ms) })
order('block', (ms) => { for (const until = Date.now() + Number(ms); Date.now() < until;); })

let last = Date.now()
setInterval(() => {
  const now = Date.now()
  if (now - last > 500) record('stalled', last, now)
  last = now
}, 50).unref()

listen(server)
