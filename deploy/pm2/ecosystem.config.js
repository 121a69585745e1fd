// An app in several instances for lb, each a process of its own (fork mode) on a port of its own:
//
//   pm2 start ecosystem.config.js                  [pool.app]
//   pm2 save && pm2 startup                        backends = ["127.0.0.1:3000-3003"]
//
// Not cluster mode: there, all instances share one port, PM2 itself spreads connections, and lb could neither send less
// to a slow instance nor empty one before a restart. And not `instances: 4` with `increment_var: "PORT"`, which looks
// shorter: as soon as PM2 reads this file again (restart, reload, startOrReload with its name), it gives the first port
// to all of them, and they fail with EADDRINUSE (seen with PM2 7.0.4). A name for each port also lets one be restarted:
// pm2 restart app-3002.

const name = 'app';
const script = './server.js'; // yours
const first = 3000;
const instances = 4; // about one for each core

module.exports = {
  apps: Array.from({ length: instances }, (_, i) => ({
    name: `${name}-${first + i}`,
    script,
    exec_mode: 'fork',
    instances: 1,
    env: {
      NODE_ENV: 'production',
      PORT: String(first + i),
      HOST: '127.0.0.1', // only lb has to reach it
    },
    // PM2 goes on when the app says process.send('ready') after listen(), or after this time.
    wait_ready: true,
    listen_timeout: 10000,
    // After SIGINT, so long until SIGKILL. Below lb's grace of 30 s, and enough for what is under way: the app calls
    // server.close() on SIGINT and exits when it has ended.
    kill_timeout: 25000,
    // A restart in a loop gets slower and slower. lb sends nothing to an instance that is down.
    exp_backoff_restart_delay: 100,
    max_memory_restart: '800M',
  })),
};
