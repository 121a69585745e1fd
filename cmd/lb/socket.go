package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lb/admin"
	"lb/config"
)

// A running lb listens on a unix socket whose name follows from the path of its configuration, so that the other
// commands find it by the same file, whatever is in that file by now. The directory is that of the service
// (systemd's RuntimeDirectory), or of the user.

// socketName is the name of the socket of an lb that runs with the file at path.
func socketName(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(abs))
	return "lb-" + hex.EncodeToString(sum[:6]) + ".sock", nil
}

// serviceDir is where systemd puts the runtime directory of lb.service, and where root's lb is. Tests have their own.
var serviceDir = "/run/lb"

// runtimeDirs are the places of the socket, the most particular first; lb takes the first one.
func runtimeDirs() (dirs []string) {
	if d, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":"); d != "" {
		dirs = append(dirs, d)
	}
	if os.Geteuid() == 0 {
		dirs = append(dirs, serviceDir)
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		dirs = append(dirs, d)
	}
	return append(dirs, filepath.Join(os.TempDir(), fmt.Sprintf("lb-%d", os.Getuid())))
}

// ownSocket is where an lb that runs with the file at path listens for other commands.
func ownSocket(path string) (string, error) {
	name, err := socketName(path)
	if err != nil {
		return "", err
	}
	return inRuntimeDir(name)
}

// inRuntimeDir is where a socket of that name belongs that this process listens at.
func inRuntimeDir(name string) (string, error) {
	dir := runtimeDirs()[0]
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := trusted(dir); err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// trusted refuses a directory in which others could put a socket of theirs in the place of lb's, as they could make
// one of the expected name in /tmp. Another user's is as good as one's own when root put it where it is, as systemd does
// with /run/lb: it is lb's then, and the rights of the socket say who may use it.
func trusted(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if owner := ownerOf(info); owner != os.Geteuid() && owner != 0 && os.Geteuid() != 0 && !placedByRoot(dir) {
		return fmt.Errorf("%s belongs to another user", dir)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("anybody may write to %s", dir)
	}
	return nil
}

// placedByRoot reports whether nobody but root can have made dir, or put it in the place of another.
func placedByRoot(dir string) bool {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	for dir != "/" {
		dir = filepath.Dir(dir)
		info, err := os.Stat(dir)
		if err != nil || ownerOf(info) != 0 || info.Mode().Perm()&0o022 != 0 {
			return false
		}
	}
	return true
}

// ownerOf is the user that a file belongs to, -1 where there are none.
func ownerOf(info fs.FileInfo) int {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid)
	}
	return -1
}

// findSocket is the socket of the lb that runs with the file at path.
func findSocket(path string) (string, error) {
	name, err := socketName(path)
	if err != nil {
		return "", err
	}
	var tried []string
	for _, dir := range append(runtimeDirs(), serviceDir) {
		tried = append(tried, filepath.Join(dir, name))
	}
	if cfg, err := config.Load(path); err == nil && cfg.Admin.Socket != "" {
		tried = append(tried, cfg.Admin.Socket)
	}
	for _, at := range tried {
		err := trusted(filepath.Dir(at))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = answers(at)
		}
		switch {
		case err == nil:
			return at, nil
		case errors.Is(err, fs.ErrPermission):
			return "", notYours(at)
		}
	}
	return "", coded(exitNoLB, fmt.Errorf("no lb runs with %s here: start it by \"lb run\", or name its file as it was named there, or its socket by --socket%s",
		path, listRunning(runningHere())))
}

// runningHere are the sockets of those lb here that this user may ask, whatever their files.
func runningHere() (all []string) {
	for _, dir := range append(runtimeDirs(), serviceDir) {
		if trusted(dir) != nil {
			continue
		}
		found, _ := filepath.Glob(filepath.Join(dir, "lb-*.sock"))
		for _, at := range found {
			if !slices.Contains(all, at) && answers(at) == nil {
				all = append(all, at)
			}
		}
	}
	return all
}

// listRunning says which lb there are, a line for each; of many, the first few.
func listRunning(all []string) string {
	var b strings.Builder
	for _, at := range all[:min(len(all), 5)] {
		st := statusAt(at)
		fmt.Fprintf(&b, "\n  --socket %s", at)
		if st.File != "" {
			fmt.Fprintf(&b, " is process %d, with %s", st.PID, printable(st.File))
		}
	}
	return b.String()
}

// statusMost is how long a status may take that nobody has asked for.
const statusMost = time.Second

// statusAt is the status of the lb at a socket; nothing is in it when that does not answer soon.
func statusAt(socket string) (st admin.Status) {
	c := overSocket(socket)
	c.Timeout = statusMost
	res, err := c.Get("http://lb/status")
	if err != nil {
		return st
	}
	defer res.Body.Close()
	if json.NewDecoder(res.Body).Decode(&st) != nil {
		return admin.Status{}
	}
	return st
}

// groupOf is the name of the group that a file belongs to, "" where it has none.
func groupOf(info fs.FileInfo) string {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		if g, err := user.LookupGroupId(strconv.Itoa(int(sys.Gid))); err == nil {
			return g.Name
		}
	}
	return ""
}

// answers tells whether somebody listens at a socket.
func answers(path string) error {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return err
}

// overSocket is a client whose requests all go to a socket.
func overSocket(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}
