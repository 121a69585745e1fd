//go:build !linux

package loop

import "testing"

func cpuPerOp(*testing.B) (report func()) { return func() {} }
