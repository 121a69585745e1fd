package server

import (
	"errors"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"

	"lb/config"
)

// TestFaultsSayWhatToDo holds that what keeps lb from running comes with what would help.
func TestFaultsSayWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	at := taken.Addr().String()
	_, port, _ := net.SplitHostPort(at)
	for _, c := range []struct {
		err  error
		want string
	}{
		{listenFault(at, syscall.EADDRINUSE), `"` + at + `" is taken: another program listens there already, sudo ss -ltnp 'sport = :` + port + `' says which; stop it, or choose another address (`},
		{listenFault(":80", syscall.EACCES), `"setcap cap_net_bind_service=+ep" gives it`},
		{listenFault("/nosuch/lb.sock", syscall.ENOENT), "there is no directory /nosuch: make it"},
		{unwritten(config.Pos{}, listenFault(at, syscall.EADDRINUSE), "[admin] and so on"), "): write [admin] and so on into the file"},
		{fileFault(&fs.PathError{Op: "open", Path: "/nosuch/log", Err: syscall.ENOENT}), "make the directory /nosuch,"},
		{fileFault(&fs.PathError{Op: "open", Path: "/nosuch/log", Err: syscall.EACCES}), "has to be allowed to write there"},
	} {
		if !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%q, want %q in it", c.err, c.want)
		}
	}
	written := listenFault(at, syscall.EADDRINUSE)
	if got := unwritten(config.Pos{Line: 1}, written, "x"); got != written {
		t.Errorf("where the file has an address: %v", got)
	}
	if got := unwritten(config.Pos{}, errors.New("other"), "x"); got.Error() != "other" {
		t.Errorf("another fault: %v", got)
	}
}
