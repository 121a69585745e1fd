// An instance for the balance bench: GET /NANOSECONDS takes so long, times SLOW, and no other request is served meanwhile.
// WORK=spin burns processor time. WORK=wait blocks the event loop without: the instance is as busy as with work, and the
// machine is not.
import http from 'node:http';

const slow = Number(process.env.SLOW || 1);
const cell = new Int32Array(new SharedArrayBuffer(4));

function wait(ns) {
  Atomics.wait(cell, 0, 0, ns / 1e6);
}

function spin(ns) {
  const from = process.cpuUsage();
  let used = 0;
  do {
    for (let i = 0; i < 2000; i++) used = (used * 31 + i) | 0;
    const c = process.cpuUsage(from);
    used = (c.user + c.system) * 1e3;
  } while (used < ns);
}

const work = process.env.WORK === 'spin' ? spin : wait;

const server = http.createServer((req, res) => {
  const ns = Number(req.url.slice(1)) * slow;
  const began = process.hrtime.bigint();
  const cpu = process.cpuUsage();
  if (ns > 0) work(ns);
  const used = process.cpuUsage(cpu);
  res.writeHead(200, {
    'content-length': 2,
    'x-wall': String(process.hrtime.bigint() - began),
    'x-cpu': String((used.user + used.system) * 1000),
    'x-instance': process.env.NAME,
  });
  res.end('ok');
});
server.keepAliveTimeout = 120_000;
server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => console.log(`listening ${server.address().port}`));
process.on('SIGTERM', () => process.exit(0));
