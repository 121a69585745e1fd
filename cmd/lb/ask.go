package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"lb/admin"
)

// target is the lb that a command is for.
type target struct{ config, socket string }

func (t *target) flags(c *cobra.Command) {
	c.Flags().StringVar(&t.config, "config", "", "the file that lb runs with; by default the one that \"lb run\" would read, or if there is none that of the only lb here")
	t.socketFlag(c)
}

func (t *target) socketFlag(c *cobra.Command) {
	c.Flags().StringVar(&t.socket, "socket", "", "the unix socket of lb, such as that of [admin] socket; by default it is found by the file")
}

// find is where lb listens for orders. Where nothing says which lb, and only one runs here, it is that one, now and for
// as long as the command runs.
func (t *target) find() (socket string, err error) {
	if t.socket != "" {
		return t.socket, nil
	}
	var args []string
	if t.config != "" {
		args = []string{t.config}
	}
	file, err := configFile(args)
	if err == nil {
		return findSocket(file)
	}
	all := runningHere()
	switch len(all) {
	case 0:
		return "", coded(exitNoLB, fmt.Errorf("no lb is seen to run here, and there is no %s: \"lb run FILE\" starts one, --config FILE names that of one that runs",
			strings.Join(configPlaces, " and no ")))
	case 1:
		t.socket = all[0]
		return t.socket, nil
	}
	return "", coded(exitNoLB, fmt.Errorf("%d of lb run here, say which%s", len(all), listRunning(all)))
}

// order sends an order and reads the answer.
func (t *target) order(path string, o, answer any) error {
	return t.ask("POST", path, func() any { return o }, answer)
}

// get reads what there is at a path.
func (t *target) get(path string, answer any) error { return t.ask("GET", path, nil, answer) }

func (t *target) ask(method, path string, body func() any, answer any) error {
	res, err := t.open(method, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("lb did not answer to the end: %w", err)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("lb's answer makes no sense: %w", err)
	}
	return nil
}

// open asks lb for something and gives its answer, once that is known to be a good one. Who meets the end of an upgrade
// asks again, by what body, nil or not, says by then: the new lb is at the same socket.
func (t *target) open(method, path string, body func() any) (*http.Response, error) {
	socket, err := t.find()
	if err != nil {
		return nil, err
	}
	for again := 0; ; again++ {
		var text []byte
		if body != nil {
			if text, err = json.Marshal(body()); err != nil {
				return nil, err
			}
		}
		req, err := http.NewRequest(method, "http://lb"+path, bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := overSocket(socket).Do(req)
		switch {
		case err != nil:
			return nil, unreachable(socket, err)
		case res.StatusCode == http.StatusOK:
			return res, nil
		case res.StatusCode != http.StatusServiceUnavailable || again == mostAgain:
			return nil, refusal(res, socket, path)
		}
		res.Body.Close()
		time.Sleep(100 * time.Millisecond)
	}
}

// mostAgain is how often a command asks again.
const mostAgain = 10

// refusal is what an answer says that is not a good one.
func refusal(res *http.Response, socket, path string) error {
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	var f admin.Fault
	if json.Unmarshal(text, &f) != nil || f.Error == "" {
		return fmt.Errorf("%s: %s: whoever is there does not know %s", socket, strings.TrimSpace(res.Status), path)
	}
	if res.StatusCode == http.StatusNotFound {
		return coded(exitUnknown, errors.New(f.Error))
	}
	return errors.New(f.Error)
}

var errEnded = errors.New("ended before it had answered")

// unreachable says why nobody was found at a socket.
func unreachable(socket string, err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return coded(exitNoLB, fmt.Errorf("no lb is at %s", socket))
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return notYours(socket)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("the lb at %s %w", socket, errEnded)
	}
	return fmt.Errorf("%s: %w", socket, err)
}

func notYours(socket string) error {
	help := ""
	if info, err := os.Stat(socket); err == nil {
		if group := groupOf(info); group != "" && group != "root" {
			help = fmt.Sprintf("; sudo usermod -aG %s \"$USER\" makes you that, from the next login on", group)
		}
	}
	return fmt.Errorf("lb's socket %s is not yours to use: be root (sudo), or of its group%s", socket, help)
}
