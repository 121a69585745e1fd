// An Express app as people write them, with routes for what the tests want to see.
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import express from 'express'
import { listen, name, order, pass } from './lib.mjs'

const app = express()
app.set('trust proxy', '127.0.0.1')
app.use((req, res, next) => {
  res.set('X-Instance', name)
  next()
})

app.get('/work/:id', (req, res) => { res.type('text').send(`${name} did ${req.params.id}`) })

app.all('/seen', (req, res) => {
  const { method, originalUrl, ip, ips, protocol, hostname, secure, httpVersion, headers } = req
  res.json({ method, originalUrl, ip, ips, protocol, hostname, secure, httpVersion, headers })
})

app.post('/json', express.json(), (req, res) => { res.status(201).json({ got: req.body, by: name }) })

app.post('/sum', (req, res) => {
  const hash = createHash('sha256')
  let length = 0
  req.on('data', (b) => { hash.update(b); length += b.length })
  req.on('end', () => res.json({ length, sum: hash.digest('hex') }))
})

app.get('/bytes/:n', (req, res) => { res.type('bin').send(Buffer.alloc(Number(req.params.n), name)) })

app.get('/fails', () => { throw new Error('as asked') })

// Answers once the gate is open.
app.all('/gate/:id', async (req, res) => {
  await pass(req.params.id)
  res.type('text').send(`passed ${req.params.id}`)
})

// Sends half of its answer at once, the rest when the gate is open.
app.get('/half/:id', async (req, res) => {
  res.type('text').write('first half, ')
  await pass(req.params.id)
  res.end('second half')
})

// Server-sent events, each sent by the order "event ID TEXT".
const streams = new Map()

app.get('/events/:id', (req, res) => {
  const { id } = req.params
  res.set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' }).flushHeaders()
  streams.set(id, res)
  console.log('streaming', id, req.get('Last-Event-ID') ?? '-')
  res.on('close', () => console.log('closed', id))
})

order('event', (id, text) => { streams.get(id).write(`id: ${text}\ndata: ${text}\n\n`) })
order('done', (id) => { streams.get(id).end() })

app.use((err, req, res, next) => { res.status(500).send(err.message) }) // without a stack on standard error

listen(createServer(app))
