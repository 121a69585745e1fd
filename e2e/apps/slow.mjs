// An Express app as a deploy meets it: it takes START ms to listen, its check says 503 for WARM ms more, and on SIGINT
// or SIGTERM it stops listening and ends when its requests have, at the latest after 10 s. What VERSION_FILE says decides how it
// does: "exits" ends at once, "sick" answers its check with 500, "erring" answers every third request with 500, "slow"
// is late by 150 ms. Under PM2's cluster mode it listens on PORT together with the others.
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import express from 'express'
import { WebSocketServer } from 'ws'

const { PORT, NAME = PORT, START = '300', WARM = '300', VERSION_FILE } = process.env
const version = VERSION_FILE ? readFileSync(VERSION_FILE, 'utf8').trim() : 'good'
if (version === 'exits') {
  console.error('cannot find module ./config')
  process.exit(1)
}
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

let warm = false
let seen = 0
const app = express()
app.get('/health', (req, res) => { res.status(version === 'sick' ? 500 : warm ? 200 : 503).end(version) })
app.use((req, res, next) => {
  res.set({ 'X-Instance': NAME, 'X-Pid': String(process.pid) })
  if (version === 'erring' && ++seen % 3 === 0) res.status(500).send('erring')
  else if (version === 'slow') setTimeout(next, 150)
  else next()
})
app.get('/work/:id', (req, res) => { res.type('text').send(`did ${req.params.id}`) })
app.post('/add', express.text({ limit: '1mb' }), async (req, res) => {
  await sleep(20)
  res.type('text').send(`added ${req.body.length}`)
})
app.all('/sleep/:ms', async (req, res) => {
  await sleep(Number(req.params.ms))
  res.type('text').send('slept')
})

const server = createServer(app)
const sockets = new WebSocketServer({ server, path: '/ws' })
sockets.on('connection', (socket) => {
  socket.on('message', (data) => socket.send(data.toString()))
  socket.on('error', () => {})
})

const end = () => {
  server.close(() => process.exit(0))
  server.closeIdleConnections()
  for (const s of sockets.clients) s.close(1012)
  setTimeout(() => process.exit(0), 10_000).unref()
}
process.on('SIGINT', end).on('SIGTERM', end)

await sleep(Number(START))
server.listen(Number(PORT), '127.0.0.1', async () => {
  if (process.send) process.send('ready')
  await sleep(Number(WARM))
  warm = true
})
