// Echoes WebSocket messages as they came; "close CODE REASON" closes.
import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'
import { listen, name } from './lib.mjs'

const server = createServer((req, res) => { res.writeHead(426).end('WebSocket only') })
const sockets = new WebSocketServer({ server, perMessageDeflate: { threshold: 0 }, maxPayload: 64 << 20 })

sockets.on('connection', (socket, req) => {
  socket.send(JSON.stringify({ name, url: req.url, headers: req.headers }))
  socket.on('message', (data, binary) => {
    const [verb, code, reason] = binary ? [] : data.toString().split(' ')
    if (verb === 'close') socket.close(Number(code), reason)
    else socket.send(data, { binary })
  })
  socket.on('close', (code, reason) => console.log('closed', code, reason.toString()))
  socket.on('error', () => {}) // a cut connection: 'close' follows
})
listen(server)
