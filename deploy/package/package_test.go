//go:build linux

// Package packages tests what `make package` makes: what is in it, and, with a real systemd booted in a directory, its
// life on a machine.
package packages

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lb/config"
)

// packagesVariable names the directory with what build.sh has made.
const packagesVariable = "LB_PACKAGES"

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skipf("there is no %s: install it", name)
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// TestVersion holds that packages are ordered as commits are.
func TestVersion(t *testing.T) {
	var inOrder []string
	for _, c := range []struct{ described, want string }{
		{"a1b2c3d-dirty", "0~git20261121.131415.a1b2c3d+dirty"},
		{"v0.9.0", "0.9.0"},
		{"v1.0.0-rc.1", "1.0.0~rc.1"},
		{"v1.0.0-rc.1-3-gabc1234", "1.0.0~rc.1+3.gabc1234"},
		{"v1.0.0-rc.2", "1.0.0~rc.2"},
		{"v1.0.0", "1.0.0"},
		{"v1.0.0-dirty", "1.0.0+dirty"},
		{"v1.0.1", "1.0.1"},
		{"v1.0.1-9-g1234abc", "1.0.1+9.g1234abc"},
		{"v1.0.1-12-g1234abc-dirty", "1.0.1+12.g1234abc+dirty"},
		{"v1.0.2", "1.0.2"},
		{"v1.10.0", "1.10.0"},
	} {
		got := strings.TrimSpace(output(t, "./version.sh", c.described, "1795266855"))
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.described, got, c.want)
		}
		if !regexp.MustCompile(`^[0-9][A-Za-z0-9.+~]*$`).MatchString(got) {
			t.Errorf("%s: %s is no version for both dpkg and rpm", c.described, got)
		}
		inOrder = append(inOrder, got)
	}
	for i, v := range inOrder[1:] {
		output(t, "dpkg", "--compare-versions", inOrder[i]+"-1", "lt", v+"-1")
	}
	for i, v := range inOrder[1:] {
		if cmp := output(t, "rpm", "--eval", fmt.Sprintf("%%{lua: print(rpm.vercmp(%q, %q))}", inOrder[i], v)); strings.TrimSpace(cmp) != "-1" {
			t.Errorf("rpm: %s is not before %s: %s", inOrder[i], v, cmp)
		}
	}
}

// TestConfig holds that what is installed listens for nobody else before its owner says so.
func TestConfig(t *testing.T) {
	c, err := config.Load("config.toml")
	if err != nil {
		t.Fatal(err)
	}
	const want = "config.toml: ok: listens on 127.0.0.1:8080, sends everything to pool app (4 backends, adaptive), metrics on 127.0.0.1:9901"
	if got := c.Summary(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestShellcheck(t *testing.T) {
	scripts, err := filepath.Glob("*.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []string{"deb/*", "rpm/*", "../*.sh", "../systemd/*.sh"} {
		more, _ := filepath.Glob(of)
		scripts = append(scripts, more...)
	}
	if len(scripts) < 11 {
		t.Fatalf("only %q", scripts)
	}
	cmd := exec.Command("shellcheck", append([]string{"--external-sources", "--source-path=SCRIPTDIR/../../..", "--source-path=SCRIPTDIR/../.."}, scripts...)...)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("there is no shellcheck: install it")
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// made are the packages with that ending.
func made(t *testing.T, ending string) []string {
	t.Helper()
	dir := os.Getenv(packagesVariable)
	if dir == "" {
		t.Skipf("%s is not set: make package sets it", packagesVariable)
	}
	all, err := filepath.Glob(filepath.Join(dir, "*."+ending))
	if err != nil || len(all) == 0 {
		t.Fatalf("no %s in %s: %v", ending, dir, err)
	}
	return all
}

// The files of every package; where zsh looks is another place in each family.
var files = []string{
	"/etc/lb/config.toml", "/etc/logrotate.d/lb", "/usr/bin/lb", "/usr/lib/systemd/system/lb.service", "/usr/lib/systemd/system/lb.socket", "/usr/lib/sysusers.d/lb.conf",
	"/usr/share/bash-completion/completions/lb", "/usr/share/fish/vendor_completions.d/lb.fish",
	"/usr/share/man/man1/lb.1.gz", "/usr/share/man/man5/lb-config.5.gz",
	"/usr/share/doc/lb/README.md", "/usr/share/doc/lb/copyright", "/usr/share/doc/lb/changelog.gz", "/usr/share/doc/lb/NOTICES.gz",
	"/usr/share/doc/lb/docs/config.md", "/usr/share/doc/lb/deploy/pm2/ecosystem.config.js",
	"/usr/share/doc/lb/deploy/prometheus/lb.rules.yml", "/usr/share/doc/lb/deploy/grafana/lb.json",
}

func TestDeb(t *testing.T) {
	for _, deb := range made(t, "deb") {
		t.Run(filepath.Base(deb), func(t *testing.T) {
			arch := strings.TrimSpace(output(t, "dpkg-deb", "--field", deb, "Architecture"))
			if want := "_" + arch + ".deb"; !strings.HasSuffix(deb, want) {
				t.Errorf("its architecture is %s", arch)
			}
			have := map[string][]byte{}
			r := tar.NewReader(strings.NewReader(output(t, "dpkg-deb", "--fsys-tarfile", deb)))
			for {
				h, err := r.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				name := path.Clean("/" + h.Name)
				mode := int64(0o644)
				if h.Typeflag == tar.TypeDir || name == "/usr/bin/lb" {
					mode = 0o755
				}
				if h.Mode != mode || h.Uid != 0 || h.Gid != 0 || h.Uname != "root" || h.Gname != "root" {
					t.Errorf("%s: mode %o, owner %s(%d):%s(%d)", name, h.Mode, h.Uname, h.Uid, h.Gname, h.Gid)
				}
				if have[name], err = io.ReadAll(r); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range append(files, "/usr/share/zsh/vendor-completions/_lb") {
				if len(have[f]) == 0 {
					t.Errorf("%s is missing", f)
				}
			}
			binary(t, arch, have["/usr/bin/lb"])
			if got := strings.Fields(output(t, "dpkg-deb", "--info", deb, "conffiles")); !slices.Equal(got, []string{"/etc/lb/config.toml", "/etc/logrotate.d/lb"}) {
				t.Errorf("conffiles are %q", got)
			}
			for _, script := range []string{"postinst", "prerm", "postrm"} {
				text := output(t, "dpkg-deb", "--info", deb, script)
				if !strings.HasPrefix(text, "#!/bin/sh\n") || strings.Contains(text, "common.sh") || script == "postinst" && !strings.Contains(text, "systemd-sysusers") {
					t.Errorf("%s:\n%s", script, text)
				}
			}
		})
	}
}

func TestRPM(t *testing.T) {
	names := map[string]string{"x86_64": "amd64", "aarch64": "arm64"}
	for _, rpm := range made(t, "rpm") {
		t.Run(filepath.Base(rpm), func(t *testing.T) {
			arch := output(t, "rpm", "--query", "--package", "--queryformat=%{ARCH}", rpm)
			if !strings.HasSuffix(rpm, "."+arch+".rpm") || names[arch] == "" {
				t.Errorf("its architecture is %s", arch)
			}
			have := map[string]bool{}
			for line := range strings.Lines(output(t, "rpm", "--query", "--package", "--queryformat=[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags}\n]", rpm)) {
				f := append(strings.Fields(line), "")
				name, want := f[0], "100644 root:root "
				switch {
				case strings.HasPrefix(f[1], "40"):
					want = "40755 root:root "
				case name == "/usr/bin/lb":
					want = "100755 root:root "
				case strings.HasPrefix(name, "/etc/"):
					want += "cn" // a configuration, and not replaced
				}
				if got := f[1] + " " + f[2] + " " + f[3]; got != want {
					t.Errorf("%s: %s, want %s", name, got, want)
				}
				have[name] = true
			}
			for _, f := range append(files, "/usr/share/zsh/site-functions/_lb") {
				if !have[f] {
					t.Errorf("%s is missing", f)
				}
			}
			if os.Getuid() != 0 {
				t.Skip("only root can install a package in a directory")
			}
			// Without its scripts, which would need a system in there.
			root := t.TempDir()
			output(t, "rpm", "--root", root, "--install", "--ignorearch", "--nodeps", "--noscripts", "--nosignature", rpm)
			output(t, "rpm", "--root", root, "--verify", "--nodeps", "--nosignature", "--nouser", "--nogroup", "lb")
			program, err := os.ReadFile(filepath.Join(root, "usr/bin/lb"))
			if err != nil {
				t.Fatal(err)
			}
			binary(t, names[arch], program)
			mine := filepath.Join(root, "etc/lb/config.toml")
			if err := os.WriteFile(mine, []byte("# mine\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			output(t, "rpm", "--root", root, "--upgrade", "--replacepkgs", "--ignorearch", "--nodeps", "--noscripts", "--nosignature", rpm)
			if text, _ := os.ReadFile(mine); string(text) != "# mine\n" {
				t.Errorf("an upgrade wrote over the configuration:\n%s", text)
			}
			output(t, "rpm", "--root", root, "--erase", "--nodeps", "--noscripts", "lb")
			if _, err := os.Stat(filepath.Join(root, "usr/bin/lb")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
		})
	}
}

// binary looks at a program: for that architecture, and needing no library.
func binary(t *testing.T, arch string, program []byte) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatalf("lb is no program: %v", err)
	}
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != want {
		t.Errorf("lb is for %v, want %v", f.Machine, want)
	}
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Errorf("lb needs %q, %v", libs, err)
	}
}

// TestReproducible makes packages once more, as somebody else would at another time.
func TestReproducible(t *testing.T) {
	debs := made(t, "deb")
	dir := t.TempDir()
	cmd := exec.Command("sh", "-c", "umask 077; exec ./build.sh amd64")
	cmd.Env = append(os.Environ(), "OUT="+dir, "TZ=Asia/Tokyo", "HOSTNAME=elsewhere", "TMPDIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	compared := 0
	for _, first := range append(debs, made(t, "rpm")...) {
		second, err := os.ReadFile(filepath.Join(dir, filepath.Base(first)))
		if err != nil {
			continue // another architecture
		}
		b, err := os.ReadFile(first)
		if err != nil {
			t.Fatal(err)
		}
		compared++
		if sha256.Sum256(b) != sha256.Sum256(second) {
			t.Errorf("%s is otherwise when it is made again", filepath.Base(first))
		}
	}
	if compared != 2 {
		t.Errorf("compared %d packages, want a deb and an rpm", compared)
	}
}
