package server

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lb/upstream"
)

// listeners gives the inodes of the sockets that take connections to a: a process that is started anew has others.
// There are none when nobody listens, when a is on another machine, and when the system does not say.
func listeners(a upstream.Addr) (inodes []string) {
	if a.Path != "" {
		return unixListeners(a.Path)
	}
	if other, ok := a.Other(); ok {
		a.Localhost = false
		if inodes = listeners(a); len(inodes) > 0 {
			return inodes
		}
		return listeners(other)
	}
	if !ownAddr(a.AddrPort.Addr()) {
		return nil
	}
	var exact, any []string
	eachListener(func(at netip.AddrPort, inode string) {
		switch {
		case at.Port() != a.AddrPort.Port():
		case at.Addr().Unmap() == a.AddrPort.Addr().Unmap():
			exact = append(exact, inode)
		case at.Addr().IsUnspecified() && (at.Addr().Is6() || a.AddrPort.Addr().Unmap().Is4()):
			any = append(any, inode)
		}
	})
	if len(exact) > 0 {
		return exact // the kernel prefers them, too
	}
	return any
}

// atPort gives the inodes of all sockets that take connections at a port, whatever the address.
func atPort(port uint16) (inodes []string) {
	eachListener(func(at netip.AddrPort, inode string) {
		if at.Port() == port {
			inodes = append(inodes, inode)
		}
	})
	return inodes
}

// programOf is the name of the program of a process as the kernel has it: at most fifteen bytes.
func programOf(pid string) string {
	name, _ := os.ReadFile("/proc/" + pid + "/comm")
	return strings.TrimSpace(string(name))
}

// eachListener calls f for each TCP socket that listens, with its inode.
func eachListener(f func(at netip.AddrPort, inode string)) {
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.Open(file)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(text)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || fields[0] == "sl" {
				continue
			}
			if fields[3] != "0A" {
				break // sockets that listen come first, and of the others there may be a hundred thousand
			}
			if at, ok := procAddr(fields[1]); ok {
				f(at, fields[9])
			}
		}
		text.Close()
	}
}

func unixListeners(path string) (inodes []string) {
	f, err := os.Open("/proc/self/net/unix")
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// Num RefCount Protocol Flags Type St Inode Path; the flag is __SO_ACCEPTCON.
		fields := strings.SplitN(strings.Join(strings.Fields(lines.Text()), " "), " ", 8)
		if len(fields) == 8 && fields[3] == "00010000" && fields[7] == path {
			inodes = append(inodes, fields[6])
		}
	}
	return inodes
}

// procAddr reads an address as /proc/net/tcp has it: words of four bytes in the order of the machine, which is little
// endian wherever lb runs.
func procAddr(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(n)), ok
}

// ownAddr reports whether a is an address of this machine.
func ownAddr(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(all, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Addr().Unmap() == a.Unmap()
	})
}

// holders gives the processes that have one of the sockets open, each with the time when it started. Those of other
// users cannot be seen without being root.
func holders(inodes []string) (processes []string) {
	self := strconv.Itoa(os.Getpid())
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid := filepath.Base(dir)
		if pid == self {
			continue
		}
		fds, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue
		}
		if slices.ContainsFunc(fds, func(fd fs.DirEntry) bool {
			link, err := os.Readlink(dir + "/fd/" + fd.Name())
			inode, ok := strings.CutPrefix(strings.TrimSuffix(link, "]"), "socket:[")
			return err == nil && ok && slices.Contains(inodes, inode)
		}) {
			if began, err := startOf(dir); err == nil {
				processes = append(processes, pid+"@"+began)
			}
		}
	}
	return processes
}

// startOf is when the process of a directory in /proc began, in ticks since the machine did.
func startOf(dir string) (string, error) {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return "", err
	}
	// The second field is the name in parentheses, and may hold anything.
	_, rest, _ := strings.Cut(string(text[max(0, strings.LastIndexByte(string(text), ')')):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", errors.New("no start time in " + dir + "/stat")
	}
	return fields[19], nil
}
