package config

import (
	"fmt"
	"strconv"
	"strings"
)

// parseMode reads the rights of a socket and gives their one form.
func parseMode(s string) (string, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	switch {
	case err != nil || len(s) < 3 || len(s) > 4 || n > 0o777:
		return "", fmt.Errorf(`%s are no rights of a socket: write "0660" for its owner and group, "0600" for its owner alone`, quote(s))
	case n&0o600 != 0o600:
		return "", fmt.Errorf("%s: lb itself could not be reached: the owner needs 6", quote(s))
	case n&0o007 != 0:
		return "", fmt.Errorf("%s: everybody on this machine could change what runs: let a group in by socket_group, and write %s", quote(s), quote(fmt.Sprintf("%04o", n&^0o007)))
	case n&0o111 != 0:
		return "", fmt.Errorf("%s: a socket is not run: write %s", quote(s), quote(fmt.Sprintf("%04o", n&^0o111)))
	}
	return fmt.Sprintf("%04o", n), nil
}

// checkUser says why s cannot be a user or a group of a Unix system.
func checkUser(s string) error {
	if len(s) > 64 || strings.HasPrefix(s, "-") || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(":/,\\\"", r) }) {
		return fmt.Errorf("%s is neither a name nor a number of a user or group", quote(s))
	}
	return nil
}
