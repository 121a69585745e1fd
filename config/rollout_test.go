package config

import "testing"

func TestCheckCommand(t *testing.T) {
	for line, want := range map[string]string{
		"":                       "",
		"pm2 restart app-{port}": "",
		"{pool} {name} {index} {host} {address}{port}": "",
		"echo ${prt} {a,b} {} { {x {1} {post office}":  "", // the shell's
		"awk '{print $1}' {port}":                      "",
		"f() { kill {port}; }":                         "",
		"pm2 restart app-{prt}":                        "{prt} is not filled in: did you mean {port}?",
		"pm2 restart app-{prot}":                       "{prot} is not filled in: did you mean {port}?",
		"x {port} {ports}":                             "{ports} is not filled in: did you mean {port}?",
		"x {PORT}":                                     "{PORT} is not filled in: did you mean {port}?",
		"x ${port} {adress}":                           "{adress} is not filled in: did you mean {address}?",
		"x {backend}":                                  "{backend} is not filled in: did you mean {name}?",
		"x {Ip}":                                       "{Ip} is not filled in: did you mean {host}?",
		"systemctl restart a@{idx}":                    "",
	} {
		got := ""
		if err := CheckCommand(line); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
