package http1_test

import (
	"fmt"

	"lb/http1"
)

// A connection's bytes come in parts; Parse says when a head is whole, and what follows it.
func Example() {
	var (
		r   http1.Request
		c   http1.Chunked
		lim http1.Limits // the defaults
		buf []byte
	)
	for _, part := range []string{
		"POST /upload?name=x HTTP/1.1\r\nHost: exam",
		"ple.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET / HT",
	} {
		buf = append(buf, part...)
		n, err := r.Parse(buf, &lim)
		if err != nil {
			fmt.Println(err)
			return
		}
		if n == 0 {
			fmt.Println("more, please")
			continue
		}
		fmt.Printf("%s %s of %s, chunked: %v\n", r.Method, r.Path, r.Host, r.Length == http1.LengthChunked)
		k, done, _ := c.Feed(buf[n:])
		fmt.Printf("body ends: %v, then comes %q\n", done, buf[n+k:])
	}

	_, err := new(http1.Request).Parse([]byte("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), &lim)
	fmt.Println(err.(*http1.Error).Status, err.(*http1.Error).Reason)
	// Output:
	// more, please
	// POST /upload of example.com, chunked: true
	// body ends: true, then comes "GET / HT"
	// 400 two_hosts
}
