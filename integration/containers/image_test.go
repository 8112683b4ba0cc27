package containers

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// The image under test, and the version that it is stamped with.
const (
	imageName    = "upwell-test"
	imageVersion = "v0.0.0-test"
)

// built are the images by architecture, each of which is built once.
var (
	building sync.Mutex
	built    = make(map[string]string)
)

// image returns the name of the image that the repository's Dockerfile makes, or of the
// one that UPWELL_IMAGE names.
func image(t *testing.T) string {
	t.Helper()
	engine(t)
	if name := os.Getenv("UPWELL_IMAGE"); name != "" {
		return name
	}
	return build(t, "amd64")
}

// build builds the image for an architecture.
func build(t *testing.T, arch string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	if name := built[arch]; name != "" {
		return name
	}
	name := imageName + ":" + arch
	docker(t, "build", "--quiet", "--platform", "linux/"+arch, "--build-arg", "GO="+compiler(t), "--build-arg", "VERSION="+imageVersion, "--tag", name, "../..")
	built[arch] = name
	return name
}

// compiler returns the image that compiles: golang's own if it is named, or one made
// of this machine's Go, a shell and its certificates.
func compiler(t *testing.T) string {
	t.Helper()
	if name := os.Getenv("UPWELL_GO_IMAGE"); name != "" {
		return name
	}
	goEnv := make(map[string]string)
	out, err := exec.CommandContext(t.Context(), "go", "env", "-json", "GOROOT", "GOPROXY", "GOSUMDB", "GONOSUMDB").Output()
	if err == nil {
		err = json.Unmarshal(out, &goEnv)
	}
	if err != nil {
		t.Fatal(err)
	}
	changes := []string{"ENV PATH=/usr/local/go/bin:/bin GOTOOLCHAIN=local"}
	for _, v := range []string{"GOPROXY", "GOSUMDB", "GONOSUMDB"} {
		changes = append(changes, fmt.Sprintf("ENV %s=%q", v, goEnv[v]))
	}
	root := goEnv["GOROOT"]
	return imported(t, "compiler", filepath.Join(root, "VERSION"), func(tw *tar.Writer) error { return writeCompiler(tw, root) }, changes...)
}

// writeCompiler writes the files of a machine that can compile Go.
func writeCompiler(tw *tar.Writer, goroot string) error {
	for _, dir := range []string{"bin", "lib", "pkg", "src", "VERSION", "go.env"} {
		if err := addTree(tw, filepath.Join(goroot, dir), "usr/local/go/"+dir); err != nil {
			return err
		}
	}
	const shell = "/bin/busybox" // Debian's busybox-static
	if err := addTree(tw, shell, "bin/sh"); err != nil {
		return fmt.Errorf("%w: install busybox-static, or name an image with Go in UPWELL_GO_IMAGE", err)
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/mkdir", Linkname: "sh", Mode: 0o777}); err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
		return err
	}
	return addTree(tw, "/etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/ca-certificates.crt")
}

// addTree adds a file or a folder under another name.
func addTree(tw *tar.Writer, path, name string) error {
	return filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() && p != path {
			return err
		}
		if strings.Contains(p, "/testdata/") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		info, err := os.Stat(p) // what a link refers to
		if err != nil {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		rel, err := filepath.Rel(path, p)
		if err != nil {
			return err
		}
		err = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(filepath.Join(name, rel)), Mode: int64(info.Mode().Perm()), Size: info.Size()})
		if err != nil {
			return err
		}
		_, err = io.Copy(tw, f)
		return err
	})
}

// maxImage is what the image may take, in bytes. The program takes nearly all of it.
const maxImage = 80 << 20

// TestImage looks at what the Dockerfile makes.
func TestImage(t *testing.T) {
	c := engine(t)
	name := image(t)
	got, err := c.ImageInspect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the image takes %.1f MB", float64(got.Size)/1e6)
	if got.Size > maxImage {
		t.Errorf("the image takes %d bytes, want %d at most", got.Size, maxImage)
	}
	if got.Config.User != "65532:65532" {
		t.Errorf("it runs as %q, want as nobody in particular, 65532:65532", got.Config.User)
	}
	files, program := contents(t, name)
	for _, want := range []string{"upwell", "tmp/", "etc/ssl/certs/ca-certificates.crt", "licences/", "licences/LICENSE", "licences/README.md", "licences/texts.txt"} {
		if !files[want] {
			t.Errorf("the image holds no %s", want)
		}
		delete(files, want)
	}
	for name := range files {
		// What the engine itself puts into every container.
		if !strings.HasPrefix(name, "dev/") && !strings.HasPrefix(name, "etc/") && !strings.HasPrefix(name, "proc/") && !strings.HasPrefix(name, "sys/") && name != ".dockerenv" {
			t.Errorf("the image holds %s, want nothing but the program and what it needs", name)
		}
	}
	checkProgram(t, program, elf.EM_X86_64)

	b := start(t, testcontainers.ContainerRequest{Image: name, Cmd: []string{"--version"}, HostConfigModifier: strict})
	if code := b.exits(t); code != 0 {
		t.Errorf("upwell --version = %d, want 0", code)
	}
	eventually(t, "it to say its version", func() bool { return strings.TrimSpace(b.log.String()) == imageVersion })
}

// TestImageARM64 cross-compiles it. Nothing here can run that.
func TestImageARM64(t *testing.T) {
	c := engine(t)
	name := build(t, "arm64")
	got, err := c.ImageInspect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if got.Architecture != "arm64" {
		t.Errorf("the image is for %s, want arm64", got.Architecture)
	}
	_, program := contents(t, name)
	checkProgram(t, program, elf.EM_AARCH64)
}

// checkProgram verifies that a program is for a machine, and needs no library.
func checkProgram(t *testing.T, program []byte, want elf.Machine) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	if f.Machine != want {
		t.Errorf("the program is for %v, want %v", f.Machine, want)
	}
	if libs, err := f.ImportedLibraries(); len(libs) > 0 || err != nil {
		t.Errorf("the program needs %v (%v), want no library", libs, err)
	}
}

// contents returns the names of an image's files, and its program.
func contents(t *testing.T, image string) (names map[string]bool, program []byte) {
	t.Helper()
	c := engine(t)
	made, err := c.ContainerCreate(t.Context(), client.ContainerCreateOptions{Config: &container.Config{Image: image}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = c.ContainerRemove(t.Context(), made.ID, client.ContainerRemoveOptions{}) }()
	files, err := c.ContainerExport(t.Context(), made.ID, client.ContainerExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	names = make(map[string]bool)
	for r := tar.NewReader(files); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, program
		}
		if err == nil && h.Name == "upwell" {
			program, err = io.ReadAll(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		names[h.Name] = true
	}
}

// strict is how the image is meant to be run: nothing to write to, nothing to gain.
func strict(h *container.HostConfig) {
	h.ReadonlyRootfs = true
	h.CapDrop = []string{"ALL"}
	h.SecurityOpt = []string{"no-new-privileges"}
}
