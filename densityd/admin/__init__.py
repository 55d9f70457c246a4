"""Commands for administrators: doctor, keys, audit."""
