package main

import (
	"bytes"
	"strconv"
)

var crlf2 = []byte("\r\n\r\n")

// headEnd is the length of the head at the start of b with its empty line, or 0 when it is not whole yet.
func headEnd(b []byte) int {
	i := bytes.Index(b, crlf2)
	if i < 0 {
		return 0
	}
	return i + len(crlf2)
}

// field is the value of a header field, or nil. name is in lower case; head ends with its empty line. Proxies may
// change the case of names (HAProxy sends them in lower case).
func field(head []byte, name string) []byte {
	for {
		i := bytes.IndexByte(head, '\n')
		if i < 0 {
			return nil
		}
		head = head[i+1:]
		if len(head) > len(name) && head[len(name)] == ':' && foldEqual(head[:len(name)], name) {
			v := head[len(name)+1:]
			if e := bytes.IndexByte(v, '\r'); e >= 0 {
				v = v[:e]
			}
			return bytes.TrimSpace(v)
		}
	}
}

func foldEqual(b []byte, lower string) bool {
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// contentLength of a head; -1 when it has none or a bad one.
func contentLength(head []byte) int64 {
	v := field(head, "content-length")
	if v == nil {
		return -1
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// statusOf a response head; 0 when it is no HTTP/1.1 head.
func statusOf(head []byte) int {
	if len(head) < 13 || string(head[:9]) != "HTTP/1.1 " {
		return 0
	}
	n := 0
	for _, c := range head[9:12] {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// Heads are of two kinds: small, with three fields as a load generator sends, and browser, with ten as a browser's
// fetch of a page's script sends them. The responses follow suit: the fields of a bare Node server, or of Express.
const (
	headSmall   = "small"
	headBrowser = "browser"
)

var requestFields = map[string]string{
	headSmall: "Host: bench.test\r\nUser-Agent: lb-bench/1\r\nAccept: */*\r\n",
	headBrowser: "Host: bench.test\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
		"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
		"Referer: http://bench.test/dashboard/overview\r\n" +
		"Cookie: session=eyJ1c2VyIjoxMjM0NTY3LCJuYW1lIjoiYSJ9.Zm9vYmFyYmF6; theme=dark; _ga=GA1.1.1234567890.1700000000\r\n" +
		"Sec-Fetch-Dest: document\r\n" +
		"Sec-Fetch-Mode: navigate\r\n" +
		"Cache-Control: max-age=0\r\n",
}

var responseFields = map[string]string{
	headSmall: "Content-Type: text/plain\r\nDate: Mon, 06 Jan 2025 10:00:00 GMT\r\n",
	headBrowser: "X-Powered-By: Express\r\nContent-Type: text/html; charset=utf-8\r\n" +
		"ETag: W/\"40-2jmj7l5rSw0yVb/vlWAYkK/YBwk\"\r\nVary: Accept-Encoding\r\nCache-Control: no-cache\r\n" +
		"Date: Mon, 06 Jan 2025 10:00:00 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
}
