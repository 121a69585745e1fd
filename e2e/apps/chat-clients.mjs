// CLIENTS clients of a chat at URL in one process, of which each is in one of ROOMS rooms. They are as Socket.IO has them:
// polling first, no cookies. CLIENT=2 takes version 2 of the client, which speaks protocol 3. NEST=1 calls as NestJS reads it.
//
// Orders: "talk N" lets each say N things, and tells what was heard. "chatter MS" lets each say something every so often,
// until "quiet" tells what became of it. "report" tells who is connected.
import { order } from './lib.mjs'

const { default: io } = await import(process.env.CLIENT === '2' ? 'socket.io-client2' : 'socket.io-client')
const count = Number(process.env.CLIENTS)
const rooms = Number(process.env.ROOMS ?? 10)
const nest = process.env.NEST === '1'
const clients = []
const errors = {}
let joined = 0

for (let i = 0; i < count; i++) {
  const socket = io(process.env.URL, { forceNew: true, reconnectionDelay: 200, reconnectionDelayMax: 1000 })
  const c = { i, socket, room: `room-${i % rooms}`, said: 0, acked: 0, heard: new Map(), instances: [], breaks: 0, there: false }
  clients.push(c)
  socket.on('connect', () => socket.emit('join', c.room, (instance) => {
    c.instances.push(instance)
    c.there = true
    if (c.instances.length === 1 && ++joined === count) console.log('joined', JSON.stringify(report()))
  }))
  socket.on('disconnect', () => { c.there = false; c.breaks++ })
  const wrong = (err) => {
    const what = err?.context?.responseText ?? err?.message ?? String(err)
    errors[what] = (errors[what] ?? 0) + 1
  }
  socket.on('connect_error', wrong)
  socket.on('said', (from, n) => {
    const key = `${from}/${n}`
    c.heard.set(key, (c.heard.get(key) ?? 0) + 1)
  })
}

function say(c) {
  const n = c.said++
  const done = () => { c.acked++ }
  if (nest) c.socket.emit('say', [c.room, c.i, n], done)
  else c.socket.emit('say', c.room, c.i, n, done)
}

function report() {
  const instances = {}
  const transports = {}
  for (const c of clients) {
    const at = c.instances.at(-1)
    if (c.there) instances[at] = (instances[at] ?? 0) + 1
    const kind = c.there ? c.socket.io.engine.transport.name : 'none'
    transports[kind] = (transports[kind] ?? 0) + 1
  }
  return { connected: clients.filter((c) => c.there).length, instances, transports, errors, breaks: clients.reduce((s, c) => s + c.breaks, 0) }
}
order('report', () => console.log('reported', JSON.stringify(report())))

// settled waits until nothing more comes, 10 s at most.
async function settled(complete) {
  for (let i = 0; i < 100 && !complete(); i++) await new Promise((resolve) => setTimeout(resolve, 100))
  await new Promise((resolve) => setTimeout(resolve, 300)) // for what should not come
}

// tally compares what those in list have said to what those of them in the same room have heard.
function tally(list) {
  const out = { wanted: 0, heard: 0, lost: 0, twice: 0 }
  for (const from of list) {
    for (const to of list.filter((c) => c.room === from.room)) {
      for (let n = 0; n < from.said; n++) {
        out.wanted++
        const times = to.heard.get(`${from.i}/${n}`) ?? 0
        if (times === 0) out.lost++
        else out.heard++
        if (times > 1) out.twice++
      }
    }
  }
  return out
}

order('talk', async (n) => {
  for (const c of clients) for (let i = 0; i < Number(n); i++) say(c)
  await settled(() => tally(clients).lost === 0)
  console.log('talked', JSON.stringify(tally(clients)))
})

let chatter
order('chatter', (ms) => {
  for (const c of clients) { c.breaks = 0; c.said = 0; c.heard.clear() }
  chatter = setInterval(() => { for (const c of clients) if (c.there) say(c) }, Number(ms))
})
order('quiet', async () => {
  clearInterval(chatter)
  const steady = clients.filter((c) => c.breaks === 0)
  await settled(() => clients.every((c) => c.there) && tally(steady).lost === 0)
  const again = clients.filter((c) => c.breaks === 0)
  console.log('quieted', JSON.stringify({ steady: again.length, moved: count - again.length, ...tally(again), report: report() }))
})
order('leave', () => {
  for (const c of clients) c.socket.disconnect()
  console.log('left')
})
