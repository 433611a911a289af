package sqlite

import (
	"database/sql"
	"strconv"
)

// Keys and owners have numbers in the database, which are never used again.

// listed are the numbers in an argument that is made by jsonNumbers.
const listed = `(SELECT value FROM json_each(?))`

// numbers runs a query whose rows are one number each.
func (c *writerConn) numbers(query string, args ...any) (nums []int64, err error) {
	err = c.rows(query, args, numbersTo(&nums))
	return nums, err
}

// numbersTo reads rows that are one number each.
func numbersTo(nums *[]int64) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var num int64
		err := rows.Scan(&num)
		*nums = append(*nums, num)
		return err
	}
}

// jsonNumbers returns a JSON array.
func jsonNumbers(nums []int64) string {
	b := []byte{'['}
	for i, num := range nums {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, num, 10)
	}
	return string(append(b, ']'))
}
