package proxy

import (
	"net/http"
	"strconv"
)

// An answer is one of lb's own: a head without its end, and a body. Nothing of the request is in it.
type answer struct{ head, body []byte }

var ownAnswers = func() (m [600]answer) {
	for s := 400; s < 600; s++ {
		text := http.StatusText(s)
		if text == "" {
			text = "Error"
		}
		line := strconv.Itoa(s) + " " + text
		m[s].body = []byte(line + "\n")
		m[s].head = []byte("HTTP/1.1 " + line + "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: " +
			strconv.Itoa(len(m[s].body)) + "\r\n")
		if s == http.StatusServiceUnavailable { // it is for want of a backend, and those come back
			m[s].head = append(m[s].head, "Retry-After: 1\r\n"...)
		}
	}
	return m
}()

// appendAnswer appends lb's own answer with the given status, connection being the field that says what
// becomes of the connection.
func appendAnswer(dst []byte, status int, connection string, bodyless bool) []byte {
	a := &ownAnswers[status]
	dst = append(dst, a.head...)
	dst = append(dst, connection...)
	dst = append(dst, "\r\n"...)
	if !bodyless {
		dst = append(dst, a.body...)
	}
	return dst
}
