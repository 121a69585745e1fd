// Package loop runs connection code written as plain blocking Go on one event loop per core.
// Everything of a connection (socket, deadlines, buffers, the tasks that serve it) lives on one
// loop and is only ever touched there, so that code on a loop needs no locks.
//
// A [Loop] works in rounds: wait for readiness, run every task that can go on, then flush what they
// wrote, all sockets together. The last is where the speed comes from: a peer is woken once a batch
// instead of once a request.
//
// A [Task] is a coroutine. It runs until it would block (in [Conn.Read], [Conn.Write], [Loop.Dial],
// [Loop.Sleep], [Task.Park]), then the loop goes on with somebody else. Switching costs some tens of
// nanoseconds and no scheduler. A connection that waits for nothing in particular hands itself to a
// [Handler] by [Conn.Await] and then holds neither a task nor a buffer: this is what an idle keep-alive
// client or WebSocket costs.
//
// Nothing on a loop may block the thread: no file I/O, no DNS, no channel or lock that somebody holds
// for long. Such work belongs to an ordinary goroutine, which comes back with [Loop.Post], the only
// method (with [Loop.Now] excluded) that may be called from outside the loop.
//
// Rounds, tasks (iter.Pull coroutines), timers and connections are the same code everywhere. On Linux the
// system is asked by epoll. Elsewhere, and with the build tag lb_portable, goroutines that block in the net package
// read ahead of the loop, write behind it, and post what happened: slower, but the same semantics.
package loop
