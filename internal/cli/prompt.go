package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/term"
)

const maxInput = 4096 // bytes; far more than a key and a secret

// readCredential reads a raw key and an optional secret: from a terminal, without
// showing them, or from the lines of in.
func readCredential(in io.Reader, prompt io.Writer, withSecret bool) (rawKey string, secret *string, err error) {
	var lines []string
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		lines, err = ask(f, prompt, withSecret)
	} else {
		lines, err = readLines(in)
	}
	switch {
	case err != nil:
		return "", nil, err
	case len(lines) == 0:
		return "", nil, errors.New("standard input contains no key")
	case len(lines) == 1 && withSecret:
		return "", nil, errors.New("standard input contains no secret, which is the second line")
	case len(lines) == 1:
		return lines[0], nil, nil
	case len(lines) == 2:
		return lines[0], &lines[1], nil
	default:
		return "", nil, errors.New("standard input contains more than two lines: a key and its secret")
	}
}

// readLines returns the lines that are not blank.
func readLines(in io.Reader) (lines []string, err error) {
	scanner := bufio.NewScanner(io.LimitReader(in, maxInput))
	for scanner.Scan() {
		if line := strings.TrimSpace(scanner.Text()); line != "" {
			lines = append(lines, line)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	return lines, nil
}

// ask prompts on a terminal.
func ask(terminal *os.File, prompt io.Writer, withSecret bool) (lines []string, err error) {
	questions := []string{"API key: "}
	if withSecret {
		questions = append(questions, "Secret: ")
	}
	defer restoreOnInterrupt(terminal)()
	for _, question := range questions {
		fmt.Fprint(prompt, question)
		line, err := term.ReadPassword(int(terminal.Fd()))
		fmt.Fprintln(prompt)
		if err != nil {
			return nil, fmt.Errorf("reading the terminal: %w", err)
		}
		if text := strings.TrimSpace(string(line)); text != "" {
			lines = append(lines, text)
		}
	}
	return lines, nil
}

// restoreOnInterrupt turns the echo of the terminal on again if the user interrupts
// the prompt.
func restoreOnInterrupt(terminal *os.File) (stop func()) {
	state, err := term.GetState(int(terminal.Fd()))
	if err != nil {
		return func() {}
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	go func() {
		if _, ok := <-interrupted; ok {
			term.Restore(int(terminal.Fd()), state) //nolint:errcheck // the process exits
			os.Exit(130)
		}
	}()
	return func() {
		signal.Stop(interrupted)
		close(interrupted)
	}
}
