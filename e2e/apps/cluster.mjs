// WORKERS processes behind one port, as Node's cluster and PM2's cluster mode make them. "hang N" keeps worker N from
// running, so that connections which the primary hands to it are never answered; "go N" lets it run again.
import cluster from 'node:cluster'
import { createServer } from 'node:http'

if (cluster.isPrimary) {
  const { order } = await import('./lib.mjs') // which reads standard input, as workers must not
  const workers = Array.from({ length: Number(process.env.WORKERS) }, () => cluster.fork({ PORT: process.env.PORT }))
  let up = 0
  cluster.on('listening', (worker, address) => { if (++up === workers.length) console.log('listening', address.port) })
  const send = (signal) => (n) => {
    process.kill(workers[n].process.pid, signal)
    console.log('sent', signal)
  }
  order('hang', send('SIGSTOP'))
  order('go', send('SIGCONT'))
  process.on('exit', () => { for (const w of workers) w.process.kill('SIGKILL') })
} else {
  const server = createServer((req, res) => {
    res.setHeader('X-Instance', `worker ${cluster.worker.id}`)
    req.resume().on('end', () => res.end('well'))
  })
  server.listen(Number(process.env.PORT), '127.0.0.1')
}
