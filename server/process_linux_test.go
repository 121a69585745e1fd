package server

import "testing"

func TestProcAddr(t *testing.T) {
	for s, want := range map[string]string{
		"0100007F:0BB8":                         "127.0.0.1:3000",
		"00000000:FFFF":                         "0.0.0.0:65535",
		"00000000000000000000000001000000:0050": "[::1]:80",
		"0000000000000000FFFF00000100007F:0050": "[::ffff:127.0.0.1]:80",
		"":                                      "",
		"0100007F":                              "",
		"0100007F:":                             "",
		"0100007F:10000":                        "",
		"0100007F:-1":                           "",
		"0100007G:0BB8":                         "",
		"0100007:0BB8":                          "",
		"01007F:0BB8":                           "",
		"0100007F0100007F:0BB8":                 "",
	} {
		got := ""
		if at, ok := procAddr(s); ok {
			got = at.String()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
