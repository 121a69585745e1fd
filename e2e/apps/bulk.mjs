// Large bodies both ways. The digest of what was taken or sent is said on standard output too.
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { listen, order, pass } from './lib.mjs'

const block = Buffer.alloc(1 << 20)
for (let i = 0, x = 1; i < block.length; i++) {
  x = (Math.imul(x, 1103515245) + 12345) >>> 0
  block[i] = x >>> 24
}

const sent = new Map() // id -> bytes given to the socket, to see back-pressure

async function download(res, id, size, chunked) {
  res.setHeader('Content-Type', 'application/octet-stream')
  if (!chunked) res.setHeader('Content-Length', size)
  const hash = createHash('sha256')
  sent.set(id, 0)
  let open = true
  let goOn
  res.on('drain', () => goOn())
  res.on('close', () => {
    open = false
    goOn?.()
    console.log('ended', id, sent.get(id), res.writableFinished ? 'whole' : 'cut')
  })
  for (let left = size; left > 0 && open;) {
    const b = Buffer.from(block.subarray(0, Math.min(left, block.length)))
    b.writeUInt32LE(left % 0xffffffff, 0) // no two blocks are alike
    hash.update(b)
    left -= b.length
    const more = res.write(b)
    sent.set(id, sent.get(id) + b.length)
    if (!more && open) await new Promise((resolve) => { goOn = resolve })
  }
  if (open) {
    console.log('sent', id, hash.digest('hex'))
    res.end()
  }
}

async function upload(req, res, id, gated) {
  if (gated) {
    req.once('close', () => console.log('gone', id))
    await pass(id) // nothing is read until then
  }
  const hash = createHash('sha256')
  let length = 0
  for await (const b of req) {
    hash.update(b)
    length += b.length
  }
  res.setHeader('Content-Type', 'application/json')
  res.end(JSON.stringify({ length, sum: hash.digest('hex') }))
}

const server = createServer((req, res) => {
  const url = new URL(req.url, 'http://app')
  const q = url.searchParams
  const run = req.method === 'GET'
    ? download(res, q.get('id'), Number(q.get('size')), q.has('chunked'))
    : upload(req, res, q.get('id'), q.has('gated'))
  run.catch(() => res.destroy())
})
server.requestTimeout = 0
order('progress', (id) => console.log('progress', id, sent.get(id) ?? 0))
listen(server)
