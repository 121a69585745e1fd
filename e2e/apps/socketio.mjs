// A chat: what one says, all on the same instance hear.
import { createServer } from 'node:http'
import { Server } from 'socket.io'
import { listen, name } from './lib.mjs'

const server = createServer()
const io = new Server(server, { transports: ['websocket'] })

io.on('connection', (socket) => {
  socket.emit('welcome', name)
  socket.on('say', (n, bytes, heard) => {
    io.emit('said', socket.id, n)
    heard(bytes) // the acknowledgement brings the attachment back
  })
})
listen(server)
