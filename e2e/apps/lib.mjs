// What the apps have in common: they listen on PORT (0: any) of HOST, or on the unix socket SOCKET, and say so on
// standard output; they take orders on standard input, and end with it, so that no app outlives the test that started it.
import { createInterface } from 'node:readline'

export const name = process.env.NAME ?? 'app'

const orders = {}

// order makes f(...args) what the line "verb args" on standard input does.
export function order(verb, f) { orders[verb] = f }

export function listen(server) {
  const { SOCKET, PORT = '0', HOST = '127.0.0.1' } = process.env
  const say = () => console.log('listening', server.address().port ?? SOCKET)
  if (SOCKET) server.listen(SOCKET, say)
  else server.listen(Number(PORT), HOST, say)
}

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const [verb, ...args] = line.split(' ')
    orders[verb](...args)
  })
  .on('close', () => process.exit(0))

// A gate holds requests until the order "open ID"; it says "waiting ID" for each that comes.
const gates = new Map()

function gate(id) {
  if (!gates.has(id)) {
    const g = {}
    g.passed = new Promise((resolve) => { g.open = resolve })
    gates.set(id, g)
  }
  return gates.get(id)
}

export function pass(id) {
  console.log('waiting', id)
  return gate(id).passed
}

order('open', (id) => gate(id).open())
