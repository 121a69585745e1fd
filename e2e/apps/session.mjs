// An app with logins, kept by express-session: in memory, or in the Redis whose unix socket REDIS names.
import express from 'express'
import session from 'express-session'
import { RedisStore } from 'connect-redis'
import { createServer } from 'node:http'
import { createClient } from 'redis'
import { listen, name } from './lib.mjs'

let store
if (process.env.REDIS) {
  const client = createClient({ socket: { path: process.env.REDIS } })
  await client.connect()
  store = new RedisStore({ client })
}
const app = express()
app.use(session({ store, secret: 'not much of one', resave: false, saveUninitialized: false }))
app.use((req, res, next) => { res.set('X-Instance', name); next() })
app.post('/login/:user', (req, res) => {
  req.session.user = req.params.user
  res.send('welcome')
})
app.get('/whoami', (req, res) => { res.send(req.session.user ?? 'nobody') })
listen(createServer(app))
