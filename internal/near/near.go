// Package near finds the word that somebody probably meant.
package near

import (
	"slices"
	"strings"
)

// maxWord is the length in bytes from which a word is not compared: nothing that
// has a name is that long, and the comparison takes quadratic time.
const maxWord = 64

// Word returns the one of words that is nearest to word, or "" if none is near. A
// word is near if it differs in few characters, or if one of the two begins with
// the other. Case does not matter.
func Word(word string, words ...string) string {
	word = strings.ToLower(word)
	if word == "" || len(word) > maxWord {
		return ""
	}
	best, least := "", 1+allowed(word)
	for _, candidate := range words {
		if d := distance(word, strings.ToLower(candidate)); d < least {
			best, least = candidate, d
		}
	}
	if best != "" || len(word) < 3 {
		return best
	}
	for _, candidate := range words {
		c := strings.ToLower(candidate)
		if strings.HasPrefix(c, word) || len(c) > 2 && strings.HasPrefix(word, c) {
			return candidate
		}
	}
	return ""
}

// allowed returns how many characters of a word may differ.
func allowed(word string) int { return min(3, (len(word)+1)/3) }

// distance returns the number of characters that have to be inserted, removed,
// replaced or swapped with their neighbor to turn a into b.
func distance(a, b string) int {
	if len(b) > maxWord {
		return len(b)
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row
		row = make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			replace := last[j]
			if a[i] != b[j] {
				replace++
			}
			row[j+1] = min(replace, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before = last
	}
	return row[len(b)]
}

// List returns words as a text: "a, b or c".
func List(words []string) string {
	words = slices.Clone(words)
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// OneOf returns what to say about a word that is none of words: "must be a, b or
// c", and which of them is near.
func OneOf(word string, words ...string) string {
	text := "must be " + List(words)
	if best := Word(word, words...); best != "" {
		text += ": did you mean " + best + "?"
	}
	return text
}
