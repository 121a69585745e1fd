// The live page. It shows what GET /live streams, and changes in place what it shows. Text goes into the page as text
// only (textContent, setAttribute): names and reasons come from configuration, apps and people.

const LENGTH = 120 // samples that are kept, one a second
const SHOWN = 100 // events that are shown
const SILENCE = 6000 // ms without a message after which a connection is taken for dead: one is due each second
const HIDDEN = 30000 // ms that a hidden page keeps its place

// The fields of a sample, see point in live.go.
const RATE = 0, FAILED = 1, P50 = 2, P99 = 3

const $ = (id) => document.getElementById(id)

/* Words and numbers. */

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const count = (n) => whole.format(n)
const decimals = [0, 1, 2].map((d) => new Intl.NumberFormat('en', { minimumFractionDigits: d, maximumFractionDigits: d }))
const rate = (x) => (x === 0 ? '0' : x < 10 ? decimals[1].format(x) : whole.format(x))
const millis = (ms) => {
  if (ms <= 0) return '–'
  if (ms < 10) return decimals[1].format(ms) + ' ms'
  if (ms < 1000) return whole.format(ms) + ' ms'
  return decimals[ms < 10000 ? 2 : 1].format(ms / 1000) + ' s'
}
const percent = (x) => {
  if (x === 0) return '0 %'
  if (x < 0.0001) return '<0.01 %'
  return decimals[x < 0.01 ? 2 : x < 0.1 ? 1 : 0].format(x * 100) + ' %'
}
const things = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`

function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000))
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min`
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`
  return things(Math.floor(s / 86400), 'day')
}

/* The document: nodes are made once, and touched only where something differs. */

function make(tag, attributes, ...children) {
  const svg = tag === 'svg' || tag === 'use' || tag === 'path'
  const e = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag)
  for (const [k, v] of Object.entries(attributes ?? {})) e.setAttribute(k, v)
  e.append(...children)
  return e
}
function text(e, s) { if (e.textContent !== s) e.textContent = s }
function attribute(e, name, s) { if (e.getAttribute(name) !== s) e.setAttribute(name, s) }
function flag(e, name, on) { if (e[name] !== on) e[name] = on }
function shape(name) { return make('svg', { 'aria-hidden': 'true' }, make('use', { href: '#s-' + name })) }
function reshape(svg, name) { attribute(svg.firstChild, 'href', '#s-' + name) }

// line is a small chart of the last two minutes. A row's are for the eye only, its numbers stand beside it.
class Line {
  constructor(kinds, name) {
    this.kinds = kinds
    this.svg = make('svg', { class: 'line', viewBox: `0 0 ${LENGTH - 1} 24`, preserveAspectRatio: 'none' })
    if (name) {
      this.svg.setAttribute('role', 'img')
      this.name = name
    } else {
      this.svg.setAttribute('aria-hidden', 'true')
    }
    this.base = make('path', { class: 'base', d: `M0 23.5H${LENGTH - 1}` })
    this.svg.append(this.base)
    if (kinds[0] === 'rate') {
      this.area = make('path', { class: 'area' })
      this.svg.append(this.area)
    }
    this.paths = kinds.map((k) => make('path', { class: k }))
    this.svg.append(...this.paths)
  }

  // draw shows the fields of samples on one scale. Where one is 0 there is a gap, but for the rate, whose 0 is news.
  draw(samples, fields) {
    let max = 0
    for (const s of samples) for (const f of fields) if (s[f] > max) max = s[f]
    this.max = max
    fields.forEach((f, i) => {
      let d = '', pen = false
      if (max > 0) {
        samples.forEach((s, j) => {
          if (f !== RATE && s[f] === 0) { pen = false; return }
          const x = LENGTH - samples.length + j, y = 23.5 - s[f] / max * 22
          // A point between gaps is a short stroke: a path of one point is not drawn.
          d += pen ? `L${x} ${y.toFixed(1)}` : `M${x} ${y.toFixed(1)}h.01`
          pen = true
        })
      }
      attribute(this.paths[i], 'd', d)
      if (i === 0 && this.area) {
        attribute(this.area, 'd', d && `${d}L${LENGTH - 1} 23.5H${LENGTH - samples.length}Z`)
      }
    })
  }

  says(words) { attribute(this.svg, 'aria-label', `${this.name}: ${words}`) }
}

// Charts that nobody sees are not drawn.
const sight = new IntersectionObserver((all) => {
  for (const e of all) {
    const row = e.target.row
    row.seen = e.isIntersecting
    row.draw()
  }
}, { rootMargin: '200px' })

/* A backend's row. */

const states = { ready: 'Ready', draining: 'Draining', down: 'Down', ejected: 'Ejected', resting: 'Resting', unchecked: 'Unchecked' }
const word = (state) => states[state] ?? state.charAt(0).toUpperCase() + state.slice(1)

class Row {
  constructor(pool, name) {
    this.pool = pool
    this.samples = []
    const cell = (kind, label, ...children) => {
      const e = make('td', { role: 'cell', class: kind }, ...children)
      if (label) e.dataset.label = label
      return e
    }
    this.name = make('div', { class: 'name' })
    this.also = make('div', { class: 'also' })
    this.why = make('div', { class: 'why' })
    this.shape = shape('note')
    this.state = make('b')
    this.since = make('span', { class: 'since' })
    this.fill = make('div', { class: 'fill' })
    this.even = make('div', { class: 'even' })
    this.share = make('span', { class: 'pc' })
    this.rate = make('span')
    this.rateLine = new Line(['rate', 'fail'])
    this.time = make('span')
    this.p50 = make('i')
    this.p99 = make('b')
    this.time.append(this.p50, make('span', { class: 'unit', 'aria-hidden': 'true' }, ' · '), this.p99)
    this.timeLine = new Line(['p99'])
    this.work = make('span')
    this.tunnels = make('span')
    this.failed = make('span')
    this.cells = [
      cell('c-name', '', this.name, this.also, this.why),
      cell('c-state', '', make('div', { class: 'state' }, this.shape, this.state, this.since)),
      cell('c-share', '', make('div', { class: 'share' }, make('div', { class: 'track', 'aria-hidden': 'true' }, this.fill, this.even), this.share)),
      cell('c-rate', 'Requests/s', make('div', { class: 'two' }, make('span', {}, this.rate, make('span', { class: 'unit', 'aria-hidden': 'true' }, ' requests/s')), this.rateLine.svg)),
      cell('c-time', 'Answer time', make('div', { class: 'two' }, this.time, this.timeLine.svg)),
      cell('c-work n', 'In work', this.work),
      cell('c-ws n', 'WebSockets', this.tunnels),
      cell('c-fail n', 'Failed', this.failed),
    ]
    this.tr = make('tr', { role: 'row' }, ...this.cells)
    this.tr.row = this
    this.id = name
    sight.observe(this.tr)
  }

  remove() {
    sight.unobserve(this.tr)
    this.tr.remove()
  }

  // button is there only while the page may act.
  act(b, on) {
    if (!on) {
      this.button?.parentNode.remove()
      this.button = undefined
      return
    }
    if (!this.button) {
      this.button = make('button', { type: 'button' })
      this.button.addEventListener('click', () => ask(this.order, this.pool, this.id))
      this.tr.append(make('td', { role: 'cell', class: 'c-do n' }, this.button))
    }
    this.order = b.state === 'draining' ? 'ready' : 'drain'
    text(this.button, this.order === 'drain' ? 'Drain' : 'Ready')
    attribute(this.button, 'aria-label', `${this.order === 'drain' ? 'Drain' : 'Make ready'} ${b.name} of pool ${this.pool}`)
  }

  update(b, now, fair, scale) {
    attribute(this.tr, 'data-state', b.state)
    attribute(this.tr, 'data-backend', b.name)
    attribute(this.tr, 'data-out', b.state === 'ready' ? 'no' : 'yes')
    text(this.name, b.name)
    text(this.also, b.address === b.name ? '' : b.address)
    text(this.why, b.state === 'ready' ? b.differs ?? '' : [because(b), b.differs].filter(Boolean).join('; '))
    reshape(this.shape, b.state in states ? b.state : 'note')
    text(this.state, word(b.state))
    text(this.since, `for ${span(now - Date.parse(b.since))}`)
    this.fill.style.setProperty('--w', `${(b.share / scale * 100).toFixed(1)}%`)
    flag(this.even, 'hidden', fair === 0)
    this.even.style.setProperty('--at', `${(fair / scale * 100).toFixed(1)}%`)
    text(this.share, b.share === 0 ? '0 %' : decimals[1].format(b.share * 100) + ' %')
    text(this.rate, rate(b.recent.rate))
    text(this.p50, b.recent.p99_ms > 0 ? millis(b.recent.p50_ms) : '')
    text(this.p99, millis(b.recent.p99_ms))
    attribute(this.time, 'title', b.slow > 0 ? `${decimals[1].format(b.slow)} times the mean of its pool, as the strategy sees it` : '')
    text(this.work, b.limit > 0 ? `${count(b.inflight)} / ${count(b.limit)}` : count(b.inflight))
    text(this.tunnels, count(b.tunnels))
    text(this.failed, percent(b.recent.error_rate))
    for (const [e, zero] of [[this.rate, b.recent.rate === 0], [this.work, b.inflight === 0], [this.tunnels, b.tunnels === 0], [this.share, b.share === 0], [this.p99, b.recent.p99_ms === 0]]) {
      e.classList.toggle('zero', zero)
    }
    this.failed.className = b.recent.error_rate === 0 ? 'zero' : 'fail-some'
    this.needs = b.state !== 'ready' || b.recent.error_rate > 0
    this.tr.classList.toggle('off', $('trouble').checked && !this.needs)
  }

  draw() {
    if (!this.seen) return
    this.rateLine.draw(this.samples, [RATE, FAILED])
    this.timeLine.draw(this.samples, [P99])
  }
}

// because says why a backend is out, in words.
function because(b) {
  const parts = []
  if (b.why) parts.push(b.why)
  if (b.check && !b.check.passed && b.check.streak > 1) parts.push(`${count(b.check.streak)} checks failed in a row`)
  if (b.state === 'draining') {
    const left = []
    if (b.inflight > 0) left.push(things(b.inflight, 'request'))
    if (b.tunnels > 0) left.push(things(b.tunnels, 'WebSocket'))
    parts.push(left.length ? `still has ${left.join(' and ')}` : 'is empty')
  }
  return parts.join('; ')
}

/* A rollout of a pool, while it runs and for a while after. */

const steps = {
  draining: 'gets nothing new and finishes what it has', restarting: 'is being restarted', checking: 'has to come back and pass its checks',
  'warming up': 'is back and warms up',
}
const endings = { finished: 'finished', bad: 'stopped', failed: 'stopped', interrupted: 'was interrupted', aborted: 'was broken off' }

const restarted = (r) => `${count(r.done.length)}${r.of > 0 ? ` of ${count(r.of)}` : ''} restarted`

/* Whether what a rollout of p left out still is: somebody may have put it back. */
const leftOut = (p, bad) => p.backends.some((b) => b.name === bad.backend && b.state === 'draining')

function rolloutLevel(p) {
  const r = p.rollout
  if (r.bad.some((b) => leftOut(p, b)) || r.ending === 'failed') return 'bad'
  if (r.ended) return r.ending === 'finished' ? 'ok' : 'warn'
  return r.waits ? 'warn' : 'info'
}

class Rollout {
  constructor(pool) {
    this.shape = shape('note')
    this.title = make('h3', {})
    this.sub = make('p', { class: 'sub' })
    this.parts = ['done', 'under', 'bad', 'rest'].map((kind) => make('i', { class: `p-${kind}` }))
    this.bar = make('div', { class: 'parts', 'aria-hidden': 'true' }, ...this.parts)
    this.lines = make('ul', {})
    this.box = make('div', { class: 'rollout', role: 'group', 'aria-label': `Rollout of pool ${pool}` }, this.shape, make('div', {}, this.title, this.sub), this.bar, this.lines)
    this.box.hidden = true
  }

  update(p, now) {
    const r = p.rollout
    flag(this.box, 'hidden', !r)
    if (!r) return
    const level = rolloutLevel(p)
    attribute(this.box, 'data-level', level)
    attribute(this.box, 'data-ending', r.ended ? r.ending : '')
    reshape(this.shape, { ok: 'ready', info: 'draining', warn: 'ejected', bad: 'down' }[level])
    text(this.title, r.ended ? `Rollout ${endings[r.ending] ?? 'is over'}: ${restarted(r)}` : `Rollout: ${restarted(r)}`)
    const told = [r.ended ? `${span(now - Date.parse(r.ended))} ago` : `for ${span(now - Date.parse(r.since))}`]
    if (r.who) told.unshift(`by ${r.who}`)
    told.push(`${things(r.requests, 'request')} meanwhile, ${count(r.failed)} failed`)
    text(this.sub, told.join(', '))
    const rest = Math.max(0, r.of - r.done.length - r.under.length - r.bad.length)
    flag(this.bar, 'hidden', r.of === 0)
    ;[r.done.length, r.under.length, r.bad.length, rest].forEach((n, i) => {
      flag(this.parts[i], 'hidden', n === 0)
      this.parts[i].style.flexGrow = n
    })
    const lines = r.bad.map((b) => (leftOut(p, b) ? ['bad', `${b.backend} is bad and stays out: ${b.why}`] : ['', `${b.backend} was bad, and was put back: ${b.why}`]))
    for (const u of r.under) lines.push(['', `${u.backend} ${steps[u.step] ?? u.step}, for ${span(now - Date.parse(u.since))}`])
    if (r.waits) lines.push(['', `It waits: ${r.waits}`])
    if (r.ended && r.ending !== 'finished' && r.why && !r.bad.length) lines.push(['', r.why])
    while (this.lines.childElementCount > lines.length) this.lines.lastElementChild.remove()
    lines.forEach(([kind, words], i) => {
      const li = this.lines.children[i] ?? this.lines.appendChild(make('li', {}))
      attribute(li, 'data-kind', kind)
      text(li, words)
    })
  }
}

/* A pool's card. */

const strategies = {
  least_conn: 'fewest in work first', ewma: 'fastest first', adaptive: 'free and fastest first', p2c: 'the less busy of two',
  round_robin: 'one after the other', random: 'by chance', hash: 'by a key of the request',
}

let cards = 0

class Card {
  constructor(name) {
    this.samples = []
    this.rows = new Map()
    const id = `pool-${++cards}`
    this.title = make('h2', { id })
    this.sub = make('p', { class: 'sub' })
    const chart = (k, kinds, says) => {
      const c = { value: make('div', { class: 'v' }), line: new Line(kinds, says) }
      c.box = make('div', { class: 'chart' }, make('div', {}, make('div', { class: 'k' }, k), c.value), c.line.svg)
      return c
    }
    this.rate = chart('requests a second', ['rate', 'fail'], 'Requests a second in the last two minutes')
    this.time = chart('99 of 100 within', ['p99', 'p50'], 'Answer time in the last two minutes')
    const column = (kind, label) => make('th', { role: 'columnheader', scope: 'col', class: kind }, label)
    this.head = make('tr', { role: 'row' }, column('c-name', 'Backend'), column('c-state', 'State'), column('c-share', 'Share of requests'),
      column('c-rate', 'Requests/s'), column('c-time', 'Answer time (median · 99 %)'), column('c-work n', 'In work'), column('c-ws n', 'WebSockets'), column('c-fail n', 'Failed'))
    this.body = make('tbody', { role: 'rowgroup' })
    this.table = make('table', { role: 'table', 'aria-labelledby': id }, make('thead', { role: 'rowgroup' }, this.head), this.body)
    this.none = make('p', { class: 'empty' }, 'This pool has no backends.')
    this.removed = make('p', { class: 'empty' })
    this.rollout = new Rollout(name)
    this.section = make('section', { class: 'card pool', 'aria-labelledby': id, 'data-pool': name },
      make('div', { class: 'pool-head' }, make('div', {}, this.title, this.sub), this.rate.box, this.time.box), this.rollout.box, this.table, this.none, this.removed)
  }

  update(p, samples, full, now, actions) {
    text(this.title, p.name)
    if (full) this.samples = []
    keep(this.samples, samples?.[0])
    const ready = p.backends.filter((b) => b.state === 'ready')
    const words = [`${count(ready.length)} of ${things(p.backends.length, 'backend')} ready`]
    if (p.strategy in strategies) words.push(strategies[p.strategy])
    if (p.queue.waiting > 0) words.push(`${things(p.queue.waiting, 'request waits', 'requests wait')}`)
    if (p.recent.error_rate > 0) words.push(`${percent(p.recent.error_rate)} failed`)
    text(this.sub, words.join(' · '))
    attribute(this.sub, 'title', `strategy ${p.strategy}`)
    text(this.rate.value, rate(p.recent.rate))
    text(this.time.value, millis(p.recent.p99_ms))

    const weights = ready.reduce((sum, b) => sum + b.weight, 0)
    const fair = (b) => (weights > 0 && b.state === 'ready' ? b.weight / weights : 0)
    // Twice the largest even share fills the bar, so that even backends all end in its middle.
    const scale = Math.max(1e-9, ...p.backends.map((b) => Math.max(b.share, Math.min(1, 2 * fair(b)))))
    let place = null
    const gone = new Set(this.rows.keys())
    p.backends.forEach((b, i) => {
      gone.delete(b.name)
      let row = this.rows.get(b.name)
      if (!row) this.rows.set(b.name, row = new Row(p.name, b.name))
      if (full) row.samples = []
      keep(row.samples, samples?.[i + 1])
      row.update(b, now, fair(b), scale)
      row.act(b, actions)
      const next = place ? place.nextSibling : this.body.firstChild
      if (next !== row.tr) this.body.insertBefore(row.tr, next)
      place = row.tr
    })
    for (const name of gone) {
      this.rows.get(name).remove()
      this.rows.delete(name)
    }
    if (actions && !this.column) {
      this.column = make('th', { role: 'columnheader', scope: 'col', class: 'c-do n' }, make('span', { class: 'hidden' }, 'Action'))
      this.head.append(this.column)
    } else if (!actions && this.column) {
      this.column.remove()
      this.column = undefined
    }
    this.rollout.update(p, now)
    flag(this.none, 'hidden', p.backends.length > 0)
    flag(this.removed, 'hidden', !p.removed?.length)
    if (p.removed?.length) {
      text(this.removed, `Taken out while lb runs, and back at its next start: ${p.removed.map((b) => b.name + (b.by ? ` (by ${b.by})` : '')).join(', ')}`)
    }
    flag(this.table, 'hidden', p.backends.length === 0)
    this.draw()
  }

  draw() {
    const { rate: r, time: t } = this
    r.line.draw(this.samples, [RATE, FAILED])
    r.line.says(r.line.max > 0 ? `at most ${rate(r.line.max)}` : 'none')
    t.line.draw(this.samples, [P99, P50])
    t.line.says(t.line.max > 0 ? `99 of 100 within ${millis(t.line.max)} at most` : 'no answers')
    for (const row of this.rows.values()) row.draw()
  }
}

function keep(list, more) {
  if (!more) return
  list.push(...more)
  if (list.length > LENGTH) list.splice(0, list.length - LENGTH)
}

/* What is true in a sentence. */

const levels = ['ok', 'info', 'warn', 'bad']

function verdict(st) {
  if (st.state === 'stopping') return { level: 'info', sentence: 'lb is stopping: it takes no new connections and finishes what it has.' }
  if (st.state === 'starting') return { level: 'info', sentence: 'lb is starting: it checks the backends for the first time.' }
  const said = []
  const say = (level, sentence) => said.push({ level, sentence })
  if (st.reload && !st.reload.ok) say('warn', 'The configuration file has a mistake: what was in force goes on.')
  const out = [], leaving = []
  let all = 0, ready = 0
  for (const p of st.pools) {
    const name = (b) => (st.pools.length > 1 ? `${b.name} of ${p.name}` : b.name)
    const fit = p.backends.filter((b) => b.state === 'ready').length
    if (p.backends.length === 0) say('bad', `Pool ${p.name} has no backends: its requests cannot be answered.`)
    else if (p.fail_open) say('bad', `No backend of pool ${p.name} is well: requests go to all that may still answer.`)
    else if (fit === 0) say('bad', `No backend of pool ${p.name} is ready: its requests wait for a moment, then fail.`)
    if (p.recent.error_rate >= 0.01) say(p.recent.error_rate >= 0.05 ? 'bad' : 'warn', `${percent(p.recent.error_rate)} of the requests to pool ${p.name} fail.`)
    all += p.backends.length
    ready += fit
    const r = p.rollout
    if (r && !r.ended) say('info', `Rollout of pool ${p.name}: ${restarted(r)}.`)
    const bad = r ? r.bad.filter((b) => leftOut(p, b)).map((b) => b.backend) : []
    if (bad.length) say('warn', `A rollout of pool ${p.name} stopped: ${bad.join(', ')} ${bad.length === 1 ? 'is bad and stays' : 'are bad and stay'} out.`)
    if (fit === 0) continue // said
    for (const b of p.backends) {
      if (b.state === 'down' || b.state === 'ejected') out.push(`${name(b)} is ${b.state}`)
      else if (b.state === 'draining' && !r?.under.some((u) => u.backend === b.name) && !bad.includes(b.name)) leaving.push(name(b))
    }
  }
  if (out.length > 2) say('warn', `${count(out.length)} of ${things(all, 'backend')} are out: ${out[0]}, ${out[1]} and ${count(out.length - 2)} more. Others take their requests.`)
  else if (out.length) say('warn', `${out.join(', ')}: others take ${out.length === 1 ? 'its' : 'their'} requests.`)
  if (leaving.length) say('info', leaving.length === 1 ? `${leaving[0]} is draining.` : `${things(leaving.length, 'backend')} are draining.`)
  if (said.length === 0 && ready < all) say('info', `${count(ready)} of ${things(all, 'backend')} get requests.`)
  if (said.length === 0) say('ok', all === 1 ? 'All is well: the backend is ready.' : `All is well: ${all === 2 ? 'both' : `all ${count(all)}`} backends are ready.`)
  said.sort((a, b) => levels.indexOf(b.level) - levels.indexOf(a.level))
  return { level: said[0].level, sentence: said.slice(0, 3).map((s) => s.sentence).join(' ') }
}

const shapes = { ok: 'ready', info: 'note', warn: 'ejected', bad: 'down' }

let aloud // what was read aloud last, but for its numbers

function headline(st) {
  const v = verdict(st)
  attribute($('verdict'), 'data-level', v.level)
  reshape($('verdict').firstElementChild, shapes[v.level])
  text($('verdict-text'), v.sentence)
  // Read aloud when it says something else, not each time a number in it changes.
  const kind = v.sentence.replace(/[<\d.,]+ %/g, '#')
  if (kind !== aloud) text($('aloud'), v.sentence)
  aloud = kind
  text($('version'), `version ${st.version}`)
  text($('uptime'), `${st.state} for ${span(st.uptime_seconds * 1000)}`)

  let ready = 0, all = 0, sum = 0, failing = 0, inflight = 0, waiting = 0, tunnels = 0
  for (const p of st.pools) {
    sum += p.recent.rate
    failing += p.recent.rate * p.recent.error_rate
    waiting += p.queue.waiting
    for (const b of p.backends) {
      all++
      if (b.state === 'ready') ready++
      inflight += b.inflight
      tunnels += b.tunnels
    }
  }
  const share = sum > 0 ? failing / sum : 0
  text($('f-ready'), `${count(ready)} of ${count(all)}`)
  attribute($('f-ready'), 'data-level', ready === 0 ? 'bad' : ready < all ? 'warn' : '')
  text($('f-rate'), rate(sum))
  text($('f-errors'), percent(share))
  attribute($('f-errors'), 'data-level', share >= 0.05 ? 'bad' : share > 0 ? 'warn' : '')
  text($('f-inflight'), count(inflight))
  text($('f-waiting'), count(waiting))
  attribute($('f-waiting'), 'data-level', waiting > 0 ? 'warn' : '')
  text($('f-tunnels'), count(tunnels))
  document.title = `${v.level === 'bad' ? '✕ ' : v.level === 'warn' ? '▲ ' : ''}${count(ready)} of ${count(all)} ready – lb`
}

/* What happened. */

const happened = {
  up: ['is up', 'ready'], down: ['is down', 'down'], ejected: ['was ejected', 'ejected'], returned: ['is back', 'ready'],
  draining: ['is draining', 'draining'], drained: ['is empty', 'draining'], 'taken back': ['gets requests again', 'ready'],
  'fail open': ['has nobody who is well: requests go to all that may still answer', 'down'],
  spared: ['fails requests, and is used on', 'ejected'],
  'fail open over': ['has somebody who is well again', 'ready'],
  'weight changed': ['has another weight', 'note'], added: ['was added', 'ready'], removed: ['was taken out', 'draining'],
  'rollout begins': ['a rollout begins', 'note'], 'rollout is over': ['the rollout is over', 'note'],
  'put back': ['is back in use', 'ready'], 'left out': ['is bad, and left out', 'down'],
  reloaded: ['The configuration was reloaded', 'note'], 'not reloaded': ['The configuration was not reloaded', 'ejected'],
}

const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' })
const date = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' })

function tell(e) {
  const [verb, kind] = happened[e.event] ?? [e.event, 'note']
  const who = [e.pool && `${e.pool}`, e.backend].filter(Boolean).join(' / ')
  const at = new Date(e.time)
  const p = make('p', {})
  if (who) p.append(make('b', {}, who), ' ')
  p.append(verb)
  if (e.why) p.append(make('span', { class: 'because' }, `: ${e.why}`))
  if (e.by) p.append(make('span', { class: 'because' }, `, by ${e.by}`))
  if (e.until) p.append(make('span', { class: 'because' }, `, until ${clock.format(new Date(e.until))} at the latest`))
  return make('li', { 'data-kind': kind, 'data-event': e.event, 'data-time': e.time },
    make('time', { datetime: e.time, title: date.format(at) }, clock.format(at)), shape(kind), p)
}

let ever = 0 // events that were told

function events(list, count, full) {
  const ol = $('events')
  if (full) {
    ol.replaceChildren()
    ever = 0
  }
  // Of those in this message, who has just come may know some.
  list = list?.slice(Math.max(0, ever - (count - list.length)))
  ever = count
  if (list?.length) {
    const items = list.slice(-SHOWN).map(tell).reverse()
    ol.prepend(...items)
    while (ol.childElementCount > SHOWN) ol.lastElementChild.remove()
    // Read aloud is only what is new, and not a flood of it.
    if (!full) text($('said'), items.length > 3 ? `${items.length} things happened` : items.map((li) => li.querySelector('p').textContent).reverse().join('. '))
  }
  flag($('no-events'), 'hidden', ol.childElementCount > 0)
}

const sockets = new Map()

function listeners(all) {
  const body = $('listeners')
  const gone = new Set(sockets.keys())
  for (const l of all) {
    const key = `${l.name} ${l.address}`
    gone.delete(key)
    let cells = sockets.get(key)
    if (!cells) {
      cells = [0, 1, 2, 3].map((i) => make('td', { role: 'cell', class: i > 1 ? 'n' : '' }))
      body.append(make('tr', { role: 'row' }, ...cells))
      sockets.set(key, cells)
    }
    ;[l.name, l.address, count(l.connections), count(l.requests)].forEach((s, i) => text(cells[i], s))
  }
  for (const key of gone) {
    sockets.get(key)[0].parentNode.remove()
    sockets.delete(key)
  }
}

/* A message of the stream. */

const pools = new Map()
let latest // the last Status

function show(m, full) {
  latest = m.status
  const parent = $('pools')
  const gone = new Set(pools.keys())
  let place = null
  latest.pools.forEach((p, i) => {
    p.backends ??= []
    gone.delete(p.name)
    let card = pools.get(p.name)
    if (!card) pools.set(p.name, card = new Card(p.name))
    const next = place ? place.nextSibling : parent.firstChild
    if (next !== card.section) parent.insertBefore(card.section, next)
    place = card.section
    card.update(p, m.samples?.[i], full, m.now, m.actions)
  })
  for (const name of gone) {
    pools.get(name).section.remove()
    pools.delete(name)
  }
  headline(latest)
  listeners(latest.listeners)
  events(m.events, m.ever, full)
  flag($('tools'), 'hidden', latest.pools.reduce((n, p) => n + p.backends.length, 0) <= 12)
}

$('trouble').addEventListener('change', () => {
  for (const card of pools.values()) for (const row of card.rows.values()) row.tr.classList.toggle('off', $('trouble').checked && !row.needs)
})

/* The stream, and how it comes back. */

let source, silence, again, sleep
let since = 0 // when it was lost; 0: it is there

function connect() {
  clearTimeout(again)
  close()
  source = new EventSource('live')
  const hear = (e) => {
    alive()
    performance.mark('lb-begin')
    show(JSON.parse(e.data), e.type === 'full')
    performance.measure('lb-show', 'lb-begin')
    if (performance.getEntriesByName('lb-show').length > 300) performance.clearMeasures('lb-show')
    performance.clearMarks('lb-begin')
  }
  for (const type of ['full', 'tick', 'news']) source.addEventListener(type, hear)
  source.onerror = () => {
    // What the browser tries again by itself comes back without us; what was refused does not.
    const refused = source?.readyState === EventSource.CLOSED
    lost(refused ? 'lb did not let this page in' : 'lb does not answer')
    if (refused) refusal()
  }
  watch()
}

function close() {
  source?.close()
  source = undefined
  clearTimeout(silence)
}

// watch takes a connection that is silent for dead: a machine that went away sends no farewell.
function watch() {
  clearTimeout(silence)
  silence = setTimeout(() => {
    lost('lb is silent')
    connect()
  }, SILENCE)
}

function alive() {
  watch()
  if (since || document.body.dataset.live !== 'yes') {
    since = 0
    document.body.dataset.live = 'yes'
    $('lost').hidden = true
    attribute($('link'), 'data-link', 'live')
    text($('link-text'), 'Live')
  }
}

function lost(why) {
  since ||= Date.now()
  document.body.dataset.live = 'no'
  attribute($('link'), 'data-link', 'lost')
  text($('link-text'), 'Connection lost')
  text($('lost'), `Connection lost: ${why}. What you see is as it was at ${clock.format(since)}. This page tries again by itself.`)
  $('lost').hidden = false
}

// refusal asks what was the matter, and tries again.
async function refusal() {
  close()
  try {
    const stop = new AbortController()
    const r = await fetch('live', { signal: stop.signal, cache: 'no-store' })
    if (!r.ok) lost((await r.text()).trim().slice(0, 200))
    stop.abort()
  } catch { /* it does not answer, which has been said */ }
  clearTimeout(again)
  again = setTimeout(connect, 3000)
}

document.addEventListener('visibilitychange', () => {
  clearTimeout(sleep)
  if (document.hidden) {
    sleep = setTimeout(() => {
      close()
      clearTimeout(again)
    }, HIDDEN)
  } else if (!source) {
    connect()
  }
})

/* Orders, where they are allowed. */

const orders = {
  drain: {
    title: (b) => `Drain ${b}?`, button: 'Drain',
    text: 'It gets no new requests and finishes what it has. WebSocket clients are told to connect again, one after the other. It stays out until somebody makes it ready.',
  },
  ready: { title: (b) => `Make ${b} ready?`, button: 'Make ready', text: 'It gets requests again.' },
}

function ask(order, pool, backend) {
  const o = orders[order], dialog = $('ask')
  const p = latest.pools.find((p) => p.name === pool)
  const others = p ? p.backends.filter((b) => b.state === 'ready' && b.name !== backend).length : 0
  text($('ask-title'), o.title(backend))
  text($('ask-text'), order === 'drain' && others > 0 ? `${o.text} ${others === 1 ? 'One other backend' : `${count(others)} other backends`} of pool ${pool} ${others === 1 ? 'takes' : 'take'} its requests.` : o.text)
  text($('ask-warning'), `No other backend of pool ${pool} is ready: its requests will wait for a moment, then fail.`)
  $('ask-warning').hidden = order !== 'drain' || others > 0
  text($('ask-yes'), o.button)
  dialog.returnValue = 'no'
  dialog.onclose = () => { if (dialog.returnValue === 'yes') send(order, pool, backend) }
  dialog.showModal()
  $('ask-no').focus()
}

let toasts
function toast(words) {
  const e = $('toast')
  e.hidden = false
  text(e, words)
  clearTimeout(toasts)
  toasts = setTimeout(() => { e.hidden = true }, 8000)
}

async function send(order, pool, backend) {
  toast(order === 'drain' ? `${backend} is draining` : `${backend} is asked back`)
  try {
    let r = await fetch('page/token', { cache: 'no-store' })
    let answer = await r.json()
    if (r.ok) {
      r = await fetch(`page/${order}`, {
        method: 'POST', headers: { 'Content-Type': 'application/json', 'X-LB-Token': answer.token }, body: JSON.stringify({ pool, backend }),
      })
      answer = await r.json()
    }
    if (!r.ok) throw new Error(answer.error)
    if (order === 'ready') toast(answer.ready ? `${backend} gets requests again` : `${backend} is ${answer.state}${answer.why ? `: ${answer.why}` : ''}`)
    else if (answer.empty) toast(`${backend} is empty`)
    else toast(`${backend} still has ${things(answer.requests, 'request')} and ${things(answer.tunnels, 'WebSocket')}; it goes on draining`)
  } catch (e) {
    toast(`It did not work: ${e.message}`)
  }
}

connect()
