// An Express app that computes, as server-side rendering does, and has all else that such apps have beside it: answers that
// wait for something, event streams, long polls, uploads, downloads, WebSockets.
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import express from 'express'
import { WebSocketServer } from 'ws'
import { listen, name, order } from './lib.mjs'

const app = express()
app.disable('x-powered-by')
app.set('etag', false)
app.use((req, res, next) => {
  res.set('X-Instance', name)
  next()
})

// A page of so many rows: a thousand are a few milliseconds in which nothing else is done.
const escape = (s) => s.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)
app.get('/page/:id', (req, res) => {
  let html = `<!doctype html><title>${escape(req.params.id)}</title><table>`
  for (let i = Number(req.query.rows); i > 0; i--) {
    html += `<tr><td>${i}<td>${escape(`<row ${createHash('sha256').update(html.slice(-64)).digest('hex')}>`)}`
  }
  res.type('text').send(`${name} did ${req.params.id}, ${createHash('sha256').update(html).digest('hex')}`)
})

app.get('/work/:id', (req, res) => { res.type('text').send(`${name} did ${req.params.id}`) })

app.all('/await/:id', async (req, res) => {
  await sleep(Number(req.query.ms))
  res.type('text').send(`${name} did ${req.params.id}`)
})

// Events for the whole app, such as those of a chat: all long polls, of all instances, are answered at the same moment.
// That is every five seconds, and who comes in the last two before it gets the next.
const EVERY = 5000
app.get('/poll/:id', async (req, res) => {
  const news = Math.ceil((Date.now() + 3000) / EVERY) * EVERY
  await sleep(news - Date.now())
  res.json({ id: req.params.id, news })
})

// Words that come one by one.
let open = 0
async function words(req, res, n, every) {
  res.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache' })
  res.flushHeaders()
  open++
  let gone = false
  res.on('close', () => { gone = true; open-- })
  for (let i = 0; i < n && !gone; i++) {
    res.write(`data: ${i}\n\n`)
    await sleep(every)
  }
  if (!gone) res.end('data: [DONE]\n\n')
}
app.get('/events/:id', (req, res) => words(req, res, Number(req.query.n), 250))
app.post('/chat/:id', express.json(), async (req, res) => {
  await sleep(100) // nothing is known of the answer until the model has begun
  await words(req, res, Math.min(req.body.max_tokens, 1000), 50)
})
order('streams', () => console.log('open', open))

app.put('/upload/:id', (req, res) => {
  const hash = createHash('sha256')
  let length = 0
  req.on('data', (b) => { hash.update(b); length += b.length })
  req.on('end', () => res.json({ length, sum: hash.digest('hex') }))
})

app.get('/download/:id', (req, res) => { res.type('bin').send(Buffer.alloc(Number(req.query.bytes), name)) })

app.use((err, req, res, next) => { res.status(500).send(err.message) })

const server = createServer(app)
const sockets = new WebSocketServer({ server, path: '/ws' })
sockets.on('connection', (socket) => {
  socket.send(name)
  socket.on('message', (data, binary) => socket.send(data, { binary }))
  socket.on('error', () => {}) // a cut connection: 'close' follows
})
listen(server)
