// A runc for machines on which even root lacks capabilities, CAP_SYS_RESOURCE for example.
//
// Docker asks for every capability when a container is privileged, and runc refuses what nobody can
// give. This program takes out of the container's description what the machine cannot give, and then
// becomes the runc that RUNC names.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The capabilities in the order of their numbers, see capabilities(7).
var names = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
	SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
	AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
	PERFMON BPF CHECKPOINT_RESTORE`)

func main() {
	if err := adapt(os.Args[1:]); err != nil {
		fail(err)
	}
	runc := os.Getenv("RUNC")
	fail(syscall.Exec(runc, append([]string{"runc"}, os.Args[1:]...), os.Environ()))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "touchstone's runc:", err)
	os.Exit(1)
}

// Changes the description of the container or process that these arguments of runc create.
func adapt(arguments []string) error {
	lacking, err := lacking()
	if err != nil || len(lacking) == 0 {
		return err
	}
	create := slices.Contains(arguments, "create") || slices.Contains(arguments, "run")
	exec := slices.Contains(arguments, "exec")
	switch {
	case create:
		return edit(filepath.Join(option(arguments, "bundle", "."), "config.json"), lacking)
	case exec:
		if process := option(arguments, "process", ""); process != "" {
			return edit(process, lacking)
		}
	}
	return nil
}

// The value of an option of runc in any of its writings: --name V, --name=V, -n V.
func option(arguments []string, name, otherwise string) string {
	for at, argument := range arguments {
		if value, ok := strings.CutPrefix(argument, "--"+name+"="); ok {
			return value
		}
		if (argument == "--"+name || argument == "-"+name[:1]) && at+1 < len(arguments) {
			return arguments[at+1]
		}
	}
	return otherwise
}

// The capabilities that this process can give to nobody.
func lacking() ([]string, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(status)) {
		text, found := strings.CutPrefix(line, "CapBnd:")
		if !found {
			continue
		}
		bounds, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err != nil {
			return nil, err
		}
		var lacking []string
		for number, name := range names {
			if bounds&(1<<number) == 0 {
				lacking = append(lacking, "CAP_"+name)
			}
		}
		return lacking, nil
	}
	return nil, fmt.Errorf("/proc/self/status has no CapBnd")
}

// Takes the capabilities out of a file that describes a container (`process` inside) or a process.
func edit(path string, lacking []string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// Numbers stay as they are written: some of them are 64 bits wide.
	reader := json.NewDecoder(strings.NewReader(string(text)))
	reader.UseNumber()
	var description map[string]any
	if err := reader.Decode(&description); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	process := description
	if inner, ok := description["process"].(map[string]any); ok {
		process = inner
	}
	sets, _ := process["capabilities"].(map[string]any)
	for set, value := range sets {
		capabilities, _ := value.([]any)
		sets[set] = slices.DeleteFunc(capabilities, func(name any) bool {
			return slices.ContainsFunc(lacking, func(lacks string) bool { return name == lacks })
		})
	}
	// Nobody's score can be lowered without it.
	if slices.Contains(lacking, "CAP_SYS_RESOURCE") {
		if score, ok := process["oomScoreAdj"].(json.Number); ok && strings.HasPrefix(score.String(), "-") {
			process["oomScoreAdj"] = 0
		}
	}
	text, err = json.Marshal(description)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}
