package admin

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
)

type callerKey struct{}

// By says who asks by ctx, the context of a request that came over a unix socket: "uid 1000 (ubuntu)", as the kernel
// knows. It is "" where the kernel does not tell.
func By(ctx context.Context) string {
	uid, ok := ctx.Value(callerKey{}).(int)
	if !ok {
		page, _ := ctx.Value(callerKey{}).(string)
		return page
	}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return fmt.Sprintf("uid %d (%s)", uid, u.Username)
	}
	return fmt.Sprintf("uid %d", uid)
}

// withCaller notes who is at the other end of c.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	if u, ok := c.(*net.UnixConn); ok {
		if uid, ok := peerOf(u); ok {
			return context.WithValue(ctx, callerKey{}, uid)
		}
	}
	return ctx
}

// IsOwner reports whether root or this process's own user asks by ctx.
func IsOwner(ctx context.Context) bool {
	uid, ok := ctx.Value(callerKey{}).(int)
	return ok && (uid == 0 || uid == os.Geteuid())
}
