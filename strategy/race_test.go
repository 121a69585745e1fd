//go:build race

package strategy_test

const race = true
