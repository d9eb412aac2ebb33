-- Small parts of the tables with many columns in one file each, and not in two files for each column: an insert of some thousand flows, or
-- the merge of a few of them, made 250 files, and making files was most of what it cost.

ALTER TABLE flows MODIFY SETTING min_bytes_for_wide_part = 134217728
;
ALTER TABLE dns MODIFY SETTING min_bytes_for_wide_part = 134217728
;
ALTER TABLE tls MODIFY SETTING min_bytes_for_wide_part = 134217728
;
ALTER TABLE http MODIFY SETTING min_bytes_for_wide_part = 134217728
;
ALTER TABLE container_stats MODIFY SETTING min_bytes_for_wide_part = 134217728
