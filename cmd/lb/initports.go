package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// listener is a TCP port of this machine that somebody listens on.
type listener struct {
	port    int
	pid     int    // 0: not known, as it is another user's
	program string // the file name of the program
	command string // its command line
}

// app says whether it is likely to be an instance of an app: not PM2 itself, no debugger, and no port that a program got
// by chance.
func (l *listener) app() bool {
	return slices.Contains([]string{"node", "nodejs", "bun", "deno"}, l.program) && l.port < 32768 && l.port != 9229 &&
		!strings.HasPrefix(l.command, "PM2 v")
}

// listening are the ports that can be reached by 127.0.0.1. Linux tells; elsewhere there are none.
func listening() []listener {
	return readListening("/proc")
}

func readListening(proc string) (all []listener) {
	ports := map[uint64]int{} // by the inode of the socket
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		text, err := os.ReadFile(filepath.Join(proc, name))
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			if len(f) < 10 || f[3] != "0A" { // 0A: it listens
				continue
			}
			at, err := procAddress(f[1])
			inode, err2 := strconv.ParseUint(f[9], 10, 64)
			if err == nil && err2 == nil && (at.Addr().IsLoopback() || at.Addr().IsUnspecified()) {
				ports[inode] = int(at.Port())
			}
		}
	}
	owners := map[int]listener{}
	fds, _ := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*")) // of others' processes only root sees them
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		inode, ok := strings.CutPrefix(to, "socket:[")
		if !ok {
			continue
		}
		n, _ := strconv.ParseUint(strings.TrimSuffix(inode, "]"), 10, 64)
		port, ok := ports[n]
		if !ok {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if o, ok := owners[port]; ok && o.pid <= pid {
			continue // of a family with one socket, the first
		}
		exe, _ := os.Readlink(filepath.Join(dir, "exe"))
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		owners[port] = listener{port, pid, strings.TrimSuffix(filepath.Base(exe), " (deleted)"),
			strings.TrimSpace(string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))}
	}
	seen := map[int]bool{}
	for _, port := range ports {
		if seen[port] {
			continue
		}
		seen[port] = true
		l := owners[port]
		l.port = port
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b listener) int { return cmp.Compare(a.port, b.port) })
	return all
}

// procAddress reads an address as /proc/net/tcp has it: bytes in the order of the machine, four at a time.
func procAddress(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("no address: %q", s)
	}
	for i := 0; i < len(b); i += 4 { // little endian, as everything that lb is built for
		slices.Reverse(b[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(b)
	p, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("no address: %q", s)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), nil
}

// runs puts ports that follow one another together: 3000-3003.
func runs(of []listener) (all [][]listener) {
	for _, l := range of {
		if n := len(all); n > 0 {
			last := all[n-1]
			if before := last[len(last)-1]; before.port+1 == l.port && before.command == l.command && before.pid != 0 == (l.pid != 0) {
				all[n-1] = append(last, l)
				continue
			}
		}
		all = append(all, []listener{l})
	}
	return all
}

func portsOf(run []listener) string {
	if len(run) == 1 {
		return strconv.Itoa(run[0].port)
	}
	return fmt.Sprintf("%d-%d", run[0].port, run[len(run)-1].port)
}

// appPorts are the ports of what looks like an app: of several, of the one with most processes.
func appPorts(all []listener) (ports []string) {
	processes := map[string]int{}
	most := ""
	for _, l := range all {
		if l.app() {
			if processes[l.command]++; processes[l.command] > processes[most] {
				most = l.command
			}
		}
	}
	for _, run := range runs(slices.DeleteFunc(slices.Clone(all), func(l listener) bool { return !l.app() || l.command != most })) {
		ports = append(ports, portsOf(run))
	}
	return ports
}

// listenersTable shows ports and who listens there.
func listenersTable(all []listener) string {
	var b strings.Builder
	for _, run := range runs(all) {
		what := run[0].command
		if what == "" {
			what = run[0].program
		}
		if run[0].pid == 0 {
			what = "(another user's; root sees whose)"
		}
		if len(what) > 80 {
			what = what[:77] + "..."
		}
		if n := len(run); n > 1 {
			what += fmt.Sprintf(" (%d processes)", n)
		}
		fmt.Fprintf(&b, "  %-11s %s\n", portsOf(run), clean(what))
	}
	return b.String()
}

// clean keeps a command line, which anybody may set, from moving the cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '�' {
			return '?'
		}
		return r
	}, s)
}
