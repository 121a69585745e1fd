package http1

import (
	"testing"
)

const smallRequest = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"

const browserRequest = "GET /articles/2024/an-article?page=2&order=asc HTTP/1.1\r\n" +
	"Host: www.example.com\r\n" +
	"Connection: keep-alive\r\n" +
	"Cache-Control: max-age=0\r\n" +
	"Upgrade-Insecure-Requests: 1\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Referer: https://www.example.com/articles/2024/\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Accept-Language: en-GB,en;q=0.9\r\n" +
	"Cookie: sid=0123456789abcdef; theme=dark\r\n\r\n"

const smallResponse = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n" +
	"Date: Mon, 02 Jan 2006 15:04:05 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n"

var defaults = Limits{MaxBytes: 16384, MaxFields: 200}

func benchRequest(b *testing.B, text string) {
	buf, r := []byte(text), Request{}
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset()
		if n, err := r.Parse(buf, &defaults); n != len(buf) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkRequestSmall(b *testing.B)   { benchRequest(b, smallRequest) }
func BenchmarkRequestBrowser(b *testing.B) { benchRequest(b, browserRequest) }

func BenchmarkResponse(b *testing.B) {
	buf, r := []byte(smallResponse), Response{}
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset()
		if n, err := r.Parse(buf, &defaults, MethodGet); n != len(buf) || err != nil {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkChunked follows a body of 16 chunks of 1 KiB.
func BenchmarkChunked(b *testing.B) {
	var buf []byte
	for range 16 {
		buf = AppendChunkEnd(append(AppendChunk(buf, 1024), make([]byte, 1024)...))
	}
	buf = AppendLastChunk(buf)
	var c Chunked
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		c.Reset()
		if n, done, err := c.Feed(buf); n != len(buf) || !done || err != nil {
			b.Fatal(n, done, err)
		}
	}
}
