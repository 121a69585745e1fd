//go:build !linux

package server

import "lb/upstream"

// These are described in process_linux.go. Here the system does not say.
func listeners(upstream.Addr) []string { return nil }

func holders([]string) []string { return nil }

func atPort(uint16) []string { return nil }

func programOf(string) string { return "" }
