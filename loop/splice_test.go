package loop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"testing"
)

// relayed sends what comes by one connection on to another: the work of a proxy.
func relayed(tb testing.TB, copyAll func(dst, src *Conn) error) (in, out *net.TCPConn) {
	g := group(tb, 1, Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	to := ln.Addr().(*net.TCPAddr).AddrPort()
	in = dial(tb, listen(tb, g, func(c *Conn) {
		defer c.Close()
		up, err := c.Loop().Dial(netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), "", 0)
		if err != nil {
			tb.Error(err)
			return
		}
		defer up.Close()
		if err := copyAll(up, c); err != nil && err != io.EOF {
			tb.Error(err)
		}
	}))
	c, err := ln.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return in, c.(*net.TCPConn)
}

// moveAll splices n bytes, or all up to the end of the stream if n is negative.
func moveAll(dst, src *Conn, n int64) (moved int64, err error) {
	most := 1 << 20
	for moved != n {
		if n >= 0 {
			most = int(min(int64(most), n-moved))
		}
		if err := src.Wait(); err != nil {
			return moved, err
		}
		k, waited, err := src.Loop().Splice(dst, src, most)
		moved += int64(k)
		if err == io.EOF && n < 0 {
			return moved, nil
		}
		if err == io.EOF {
			return moved, io.ErrUnexpectedEOF
		}
		if err != nil {
			return moved, err
		}
		if waited {
			most = SlowSplice
		}
		if err := src.Loop().Yield(); err != nil {
			return moved, err
		}
	}
	return moved, nil
}

// TestSpliceMovesExactly moves a stream in pieces of given length and the rest, unequal to any buffer's.
func TestSpliceMovesExactly(t *testing.T) {
	want := make([]byte, 9<<20+12345)
	for i := range want {
		want[i] = byte(i * 31 >> 8)
	}
	in, out := relayed(t, func(dst, src *Conn) error {
		for _, n := range []int64{0, 1, 1000, 3<<20 + 1} {
			if moved, err := moveAll(dst, src, n); moved != n || err != nil {
				t.Errorf("%d of %d: %v", moved, n, err)
			}
			if err := dst.Queue([]byte("<"), []byte(">")); err != nil { // goes before the next
				t.Error(err)
			}
		}
		moved, err := moveAll(dst, src, -1)
		if rest := int64(len(want) - 1 - 1000 - (3<<20 + 1)); moved != rest || err != nil {
			t.Errorf("%d of %d: %v", moved, rest, err)
		}
		return nil
	})
	go func() {
		in.Write(want[:10])
		in.Write(want[10:])
		in.CloseWrite()
	}()
	got, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	var marked []byte
	from := 0
	for _, n := range []int{0, 1, 1000, 3<<20 + 1} {
		marked = append(append(marked, want[from:from+n]...), "<>"...)
		from += n
	}
	if !bytes.Equal(got, append(marked, want[from:]...)) {
		t.Errorf("%d bytes came, not what was sent", len(got))
	}
}

func TestSpliceOfTooShortAStream(t *testing.T) {
	done := make(chan error, 1)
	in, out := relayed(t, func(dst, src *Conn) error {
		moved, err := moveAll(dst, src, 100)
		if moved != 7 {
			t.Errorf("%d moved", moved)
		}
		done <- err
		return nil
	})
	io.WriteString(in, "too few")
	in.CloseWrite()
	if err := within(t, done); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
	if got, err := io.ReadAll(out); string(got) != "too few" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSpliceEnds has it waiting, for src or for dst, when something happens.
func TestSpliceEnds(t *testing.T) {
	stop := errors.New("stop")
	for _, test := range []struct {
		name string
		full bool // waits for dst
		do   func(dst, src *Conn, task *Task, out *net.TCPConn)
		want error // nil: any
	}{
		{"src closed", false, func(dst, src *Conn, task *Task, out *net.TCPConn) { src.Close() }, ErrClosed},
		{"dst closed", true, func(dst, src *Conn, task *Task, out *net.TCPConn) { dst.Close() }, ErrClosed},
		{"interrupted for src", false, func(dst, src *Conn, task *Task, out *net.TCPConn) { task.Interrupt(stop) }, stop},
		{"interrupted for dst", true, func(dst, src *Conn, task *Task, out *net.TCPConn) { task.Interrupt(stop) }, stop},
		{"read deadline", false, func(dst, src *Conn, task *Task, out *net.TCPConn) { src.SetReadDeadline(1) }, ErrTimeout},
		{"dst reset", true, func(dst, src *Conn, task *Task, out *net.TCPConn) { reset(out) }, nil},
		{"dst stalls", true, nil, ErrTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			errs, ready := make(chan error, 2), make(chan bool, 1)
			var outConn *net.TCPConn
			in, out := relayed(t, func(dst, src *Conn) error {
				l, task := src.Loop(), src.Loop().Current()
				if test.do == nil {
					dst.SetStallTimeout(10 * tick)
				} else {
					l.Go(runFunc(func() {
						<-ready
						for (dst.writer == nil || dst.writable) == test.full || (src.reader == nil) != test.full {
							l.Yield()
						}
						test.do(dst, src, task, outConn)
					}), nil)
				}
				_, err := moveAll(dst, src, -1)
				errs <- err
				task.ClearInterrupt()
				if test.full && !dst.Closed() { // bytes are missing: nothing may follow them
					_, err = dst.Write([]byte("x"))
				}
				errs <- err
				return nil
			})
			outConn = out
			ready <- true
			if test.full {
				go func() {
					b := make([]byte, 1<<20)
					for range 64 {
						if _, err := in.Write(b); err != nil {
							return
						}
					}
				}()
			}
			for range 2 {
				if err := within(t, errs); err == nil || test.want != nil && err != test.want {
					t.Error(err)
				}
			}
		})
	}
}

// BenchmarkRelay compares the ways to pass bytes on. The processor time is that of sender and receiver, too.
func BenchmarkRelay(b *testing.B) {
	relays := map[string]func(dst, src *Conn) error{
		"splice": func(dst, src *Conn) error {
			_, err := moveAll(dst, src, -1)
			return err
		},
	}
	for _, size := range []int{16 << 10, 64 << 10, 256 << 10} {
		relays["copy"+strconv.Itoa(size>>10)] = func(dst, src *Conn) error {
			buf := make([]byte, size)
			for {
				n, err := src.Read(buf)
				if err != nil {
					return err
				}
				if _, err := dst.Write(buf[:n]); err != nil {
					return err
				}
			}
		}
	}
	for name, relay := range relays {
		b.Run(name, func(b *testing.B) {
			in, out := relayed(b, relay)
			const unit = 1 << 20
			b.SetBytes(unit)
			go func() {
				chunk := make([]byte, unit)
				for range b.N {
					in.Write(chunk)
				}
				in.CloseWrite()
			}()
			report := cpuPerOp(b)
			sink := make([]byte, 1<<20)
			for {
				if _, err := out.Read(sink); err != nil {
					break
				}
			}
			report()
		})
	}
}
