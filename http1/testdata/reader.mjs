// Tells for each request how Node reads it: a JSON line in the field X-Saw of the answer, on the connection it came by.
// Prints the port it listens on.
import http from 'node:http';

const server = http.createServer((req, res) => {
  let length = 0;
  req.on('data', (data) => { length += data.length; });
  req.on('end', () => {
    const { method, url } = req;
    const saw = { method, url, host: req.headers.host ?? '', length, trailers: req.rawTrailers.length / 2 };
    res.setHeader('X-Saw', JSON.stringify(saw));
    res.setHeader('Content-Length', 0); // else it closes on HTTP/1.0
    res.end();
  });
});
server.on('clientError', (err, socket) => {
  if (socket.writable) socket.end(`HTTP/1.1 400 Bad Request\r\nX-Code: ${err.code}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();
