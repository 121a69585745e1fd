// A chat with rooms over several instances, by the Redis whose unix socket REDIS names; all else is as Socket.IO has it.
import { createServer } from 'node:http'
import { createAdapter } from '@socket.io/redis-adapter'
import { createClient } from 'redis'
import { Server } from 'socket.io'
import { listen, name } from './lib.mjs'

const pub = createClient({ socket: { path: process.env.REDIS } })
const sub = pub.duplicate()
await Promise.all([pub.connect(), sub.connect()])
const server = createServer()
const io = new Server(server, { adapter: createAdapter(pub, sub), allowEIO3: true })

io.on('connection', (socket) => {
  socket.on('join', async (room, joined) => {
    await socket.join(room)
    joined(name)
  })
  socket.on('say', (room, from, n, said) => {
    io.to(room).emit('said', from, n)
    said()
  })
})
listen(server)
