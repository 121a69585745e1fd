// CLIENTS clients of a chat at URL, in one process. Orders: "talk N" lets each say N things.
import { io } from 'socket.io-client'
import { order } from './lib.mjs'

const count = Number(process.env.CLIENTS)
const clients = []
const perInstance = {}
let welcomed = 0
let gone = 0
const reasons = {}

for (let i = 0; i < count; i++) {
  const socket = io(process.env.URL, { transports: ['websocket'], reconnection: false, forceNew: true })
  const c = { socket, instance: '', heard: new Map(), total: 0, echoed: 0 }
  clients.push(c)
  socket.on('connect_error', (err) => { console.log('error', err.message) })
  socket.on('welcome', (instance) => {
    c.instance = instance
    perInstance[instance] = (perInstance[instance] ?? 0) + 1
    if (++welcomed === count) console.log('welcomed', JSON.stringify(perInstance))
  })
  socket.on('said', (from, n) => {
    if (n !== (c.heard.get(from) ?? 0)) console.log('error', `out of order: ${n} after ${c.heard.get(from)}`)
    c.heard.set(from, n + 1)
    c.total++
    check()
  })
  socket.on('disconnect', (reason) => {
    reasons[reason] = (reasons[reason] ?? 0) + 1
    if (++gone === count) console.log('disconnected', JSON.stringify(reasons))
  })
}

let each = 0
let done = false

function check() {
  if (done || !clients.every((c) => c.echoed === each && c.total === each * perInstance[c.instance])) return
  done = true
  console.log('talked', clients.reduce((sum, c) => sum + c.total, 0))
}

order('talk', (n) => {
  each = Number(n)
  for (const c of clients) {
    for (let i = 0; i < each; i++) {
      const bytes = Buffer.alloc(1000 + 500 * i, c.socket.id)
      c.socket.emit('say', i, bytes, (back) => {
        if (!bytes.equals(back)) console.log('error', 'the attachment came back changed')
        c.echoed++
        check()
      })
    }
  }
})
order('leave', () => { for (const c of clients) c.socket.disconnect() })
