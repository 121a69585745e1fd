package config

// tables says what each table of a file is for, in a sentence or two. The manual page lb-config(5) is made of it and of
// the keys.
var tables = map[string]string{
	"listen.NAME": `Where clients connect. Without any such table, lb listens on ":8080". There may be several.`,
	"pool.NAME":   `The instances of your app, and how requests are spread over them. There may be several pools; each needs a route then.`,
	"pool.NAME.backends": `A backend as a table, where it needs more than an address: ` +
		"`backends = [{ address = \"127.0.0.1:3000\", weight = 2 }]`.",
	"route.NAME": `Which requests go to which pool. With one pool and no route, everything goes to that pool. The most exact route wins: ` +
		`an exact host before "*.example.com", that before any host; then the longest path.`,
	"pool.NAME.health":   `How backends are asked whether they are well. Without it, lb connects to each every 2 seconds.`,
	"pool.NAME.ejection": `When a backend is left out because requests to it failed, and for how long.`,
	"pool.NAME.affinity": `How clients are kept with the backend that they began with. Sessions of Socket.IO are without any of this.`,
	"pool.NAME.rollout":  `How "lb rollout NAME" restarts the instances of the pool one after the other. It is read by that command.`,
	"admin":              `Metrics, status and health of lb itself.`,
	"access_log":         `A line for each request.`,
	"server":             `The process, and what clients may do.`,
}

// TableDoc says what a table such as "pool.NAME" is for; "" when there is no such table.
func TableDoc(table string) string { return tables[table] }
