package main

import (
	"context"
	"debug/buildinfo"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"upwell/integration/bench/internal/standin"
)

var (
	//go:embed connect.yaml
	connectConfig []byte
	//go:embed nack.yaml
	nackConfig []byte
)

// A program is one of those that are compared.
type program struct {
	name string

	// command is how it does the work of a scenario until it is stopped.
	command func(ctx context.Context, at *standin.Servers, s *scenario) *exec.Cmd
}

// programs are built and ready to run.
type programs struct {
	upwell, connect program
	nack            program // connect as it is often set up
	versions        string  // of the modules that connect is made of
}

// build builds into dir, with the Go command's cache: the first time takes minutes.
func build(ctx context.Context, dir string) (p programs, err error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "upwell").Output()
	if err != nil {
		return p, fmt.Errorf("find the module: %w", err)
	}
	source := string(root[:len(root)-1])
	upwell, connect := filepath.Join(dir, "upwell"), filepath.Join(dir, "connect")
	for _, b := range []struct{ dir, pkg, out string }{
		{source, "./cmd/upwell", upwell},
		{filepath.Join(source, "integration/bench/peer/connect"), ".", connect},
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", b.out, b.pkg)
		cmd.Dir, cmd.Stderr = b.dir, os.Stderr
		if err := cmd.Run(); err != nil {
			return p, fmt.Errorf("build %s in %s: %w", b.pkg, b.dir, err)
		}
	}
	info, err := buildinfo.ReadFile(connect)
	if err != nil {
		return p, err
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/redpanda-data/connect/v4" {
			p.versions = m.Version
		}
	}
	config, nack := filepath.Join(dir, "connect.yaml"), filepath.Join(dir, "nack.yaml")
	err = errors.Join(os.WriteFile(config, connectConfig, 0o600), os.WriteFile(nack, nackConfig, 0o600))
	p.upwell = program{"upwell", func(ctx context.Context, at *standin.Servers, s *scenario) *exec.Cmd {
		args := []string{
			"worker", "--queue=jobs", "--bucket=results", "--log-level=warn", "--region=us-west-2",
			"--base-url=" + at.Model + "/openai/v1", fmt.Sprintf("--slots=%d", s.slots),
		}
		if s.set.Capacity == "" {
			args = append(args, "--start-rate=10000") // there is no limit to be found
		}
		cmd := exec.CommandContext(ctx, upwell, args...)
		cmd.Env, cmd.Stderr = append(os.Environ(), at.Env()...), os.Stderr
		return cmd
	}}
	with := func(config string) func(context.Context, *standin.Servers, *scenario) *exec.Cmd {
		return func(ctx context.Context, at *standin.Servers, s *scenario) *exec.Cmd {
			cmd := exec.CommandContext(ctx, connect, "run", config)
			cmd.Env = append(append(os.Environ(), at.Env()...),
				"SQS_URL="+at.SQS+"/000000000000/jobs", "DEAD_URL="+at.SQS+"/000000000000/dead", "MODEL_URL="+at.Model,
				fmt.Sprintf("SLOTS=%d", s.slots))
			cmd.Env = append(cmd.Env, s.connect...)
			cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
			return cmd
		}
	}
	p.connect, p.nack = program{"connect", with(config)}, program{"nack", with(nack)}
	return p, err
}
