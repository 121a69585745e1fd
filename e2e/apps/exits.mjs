// A worker that ends one second after its first request, whatever it does then: a leak that a supervisor covers up.
import { createServer } from 'node:http'
import { listen, name } from './lib.mjs'

let ends
listen(createServer((req, res) => {
  ends ??= setTimeout(() => process.exit(1), 1000)
  res.setHeader('X-Instance', name)
  setTimeout(() => res.end(`${name} did ${req.url.split('/').pop()}`), 5)
}))
