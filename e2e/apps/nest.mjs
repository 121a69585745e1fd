// The chat as a NestJS gateway, with decorators called by hand, since Node.js runs no TypeScript.
import 'reflect-metadata'
import { Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { IoAdapter } from '@nestjs/platform-socket.io'
import { ConnectedSocket, MessageBody, SubscribeMessage, WebSocketGateway, WebSocketServer } from '@nestjs/websockets'
import { createAdapter } from '@socket.io/redis-adapter'
import { createClient } from 'redis'
import { listen, name } from './lib.mjs'

class Gateway {
  async join(room, socket) {
    await socket.join(room)
    return name
  }

  say([room, from, n]) {
    this.server.to(room).emit('said', from, n)
    return true
  }
}
const method = (key, ...params) => {
  params.forEach((p, i) => p(Gateway.prototype, key, i))
  SubscribeMessage(key)(Gateway.prototype, key, Object.getOwnPropertyDescriptor(Gateway.prototype, key))
}
method('join', MessageBody(), ConnectedSocket())
method('say', MessageBody())
WebSocketServer()(Gateway.prototype, 'server')
WebSocketGateway()(Gateway)
class App {}
Module({ providers: [Gateway] })(App)

const pub = createClient({ socket: { path: process.env.REDIS } })
const sub = pub.duplicate()
await Promise.all([pub.connect(), sub.connect()])
class Adapter extends IoAdapter {
  createIOServer(port, options) {
    const io = super.createIOServer(port, options)
    io.adapter(createAdapter(pub, sub))
    return io
  }
}

const app = await NestFactory.create(App, { logger: ["error"] })
app.useWebSocketAdapter(new Adapter(app))
await app.init()
listen(app.getHttpServer())
