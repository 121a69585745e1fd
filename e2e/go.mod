module lb/e2e

go 1.26.0

// npm packages may hold Go files.
ignore ./apps/node_modules

require github.com/coder/websocket v1.8.15
