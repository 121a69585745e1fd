package server

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSocketRights gives the admin socket rights at the start and changes them by reloads, all or nothing.
func TestSocketRights(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lb.sock")
	text := func(more string) string {
		return three(entryA) + "[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\nsocket = \"" + path + "\"\n" + more
	}
	h := startWith(t, text("socket_mode = \"0600\"\n"), "")
	expect := func(mode fs.FileMode, uid, gid int) {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		sys := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm() != mode || int(sys.Uid) != uid || int(sys.Gid) != gid {
			t.Errorf("%v of %d:%d, want %v of %d:%d", info.Mode().Perm(), sys.Uid, sys.Gid, mode, uid, gid)
		}
	}
	me, us := os.Geteuid(), os.Getegid()
	expect(0o600, me, us)
	v := h.reloadWords(text(""))
	if len(v.Changes) != 1 || v.Changes[0] != `admin.socket_mode is "0660", was "0600"` {
		t.Errorf("%q", v.Changes)
	}
	expect(0o660, me, us)
	for _, c := range []struct{ more, want string }{
		{"socket_mode = \"0600\"\nsocket_group = \"nosuch-group-of-lb\"\n", `admin.socket_group: there is no group "nosuch-group-of-lb" on this machine`},
		{"socket_owner = \"nosuch-user-of-lb\"\n", `admin.socket_owner: there is no user "nosuch-user-of-lb" on this machine`},
	} {
		h.rewrite(text(c.more))
		if err := h.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
		expect(0o660, me, us)
	}
	if me != 0 {
		if groups, err := os.Getgroups(); err != nil || len(groups) == 0 {
			t.Skip("takes root, or a group to give the socket to")
		}
	}
	gid := us
	if groups, _ := os.Getgroups(); len(groups) > 0 {
		gid = groups[len(groups)-1]
	}
	if me == 0 {
		gid = 12345
		h.reloadWords(text(fmt.Sprintf("socket_owner = \"23456\"\nsocket_group = \"%d\"\n", gid)))
		expect(0o660, 23456, gid)
	}
	h.reloadWords(text(fmt.Sprintf("socket_group = \"%d\"\nsocket_mode = \"0640\"\n", gid)))
	expect(0o640, me, gid)
	// A reload that fails for another reason changes nothing here either.
	h.rewrite(strings.Replace(text(""), "127.0.0.1:0", "203.0.113.1:1", 1))
	if err := h.Reload(t.Context()); err == nil {
		t.Error("listens on an address that is not there")
	}
	expect(0o640, me, gid)
	h.reloadWords(text(""))
	expect(0o660, me, us)
}
