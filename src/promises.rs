//! What the log promises, fault by fault, and which test breaks each promise on purpose.
//!
//! *Accepted*: `send` returned. *Delivered*: its delivery completed. *Seen*: a consumer got it. *Promised*: everything that
//! the level of the topic says a power cut cannot take ([`Sync`](crate::Durability::Sync): delivered or seen;
//! [`Interval`](crate::Durability::Interval): up to the last completed sync; [`Os`](crate::Durability::Os): nothing yet).
//!
//! Always, at every level and after every fault below: offsets are contiguous and never given twice but for those of a
//! tail that a power cut took and that was never promised, or that was [truncated](crate::EventLog::truncate); order never changes; a record is returned whole and as written
//! or not at all; nothing appears that nobody wrote; what recovery dropped does not come back; a committed position
//! never lies past the end and moves back only if the log itself was cut, and then the
//! [`RecoveryReport`](crate::RecoveryReport) says so; no undefined behaviour, no panic, no hang.
//!
//! | # | fault | exact behaviour |
//! |---|---|---|
//! | 1 | process killed, aborted, out-of-memory killed, anywhere | all accepted records and commits are there at every level; a half-copied batch does not exist; the next opening needs no help and no time-out |
//! | 2 | panic inside a send (your serializer, key function, callback) | that record is not written; other threads and partitions go on; no lock stays poisoned. A callback runs after its record was written: that one stays |
//! | 3 | operating system crash, power cut | `Sync`: nothing promised is lost. `Interval`, `Os`: a prefix survives, never a hole |
//! | 4 | pages or sectors of the unsynced part lost, reordered, torn, garbled | seen by checksum; cut; the promised part untouched |
//! | 5 | power cut during recovery; many in a row | the same result as one recovery |
//! | 6 | process death, restart, then power cut | what opening offered is still there |
//! | 7 | a sync fails (EIO, ENOSPC, EDQUOT) | all waiting deliveries fail with `SyncFailed`; the partition takes no append until it is reopened; the durable end stays where it was; reading it goes on; other partitions are untouched; reopening writes again and syncs what it keeps, or refuses |
//! | 8 | the kernel loses a page in background write-back | found at the next sync, then as 7; never declared durable |
//! | 9 | disk or quota full | `send` fails with `NoSpace` naming file and size, nothing half-written; reading and committing go on (catalog and groups have room in reserve); when there is room again the next `send` succeeds, without reopening; opening works on a full disk, or fails with `NoSpace` where a snapshot shares the blocks of the log, so that every page that is stored to needs a new one; no SIGBUS on ext4, xfs, tmpfs, nor on btrfs |
//! | 10 | file size limit, descriptor limit, address space, map count | an error naming the limit; what is mapped stays readable; works again when the limit is lifted; not killed by SIGXFSZ |
//! | 11 | media error while reading | `Io` for that read when the bytes are not there as the segment is checked, which it is once, as far as it is read (Linux 5.14). The window that remains: bytes that were checked, were evicted from memory since and cannot be read again end the process, as they do for everybody who maps files. With [`LogConfig::copy_reads`](crate::LogConfig::copy_reads) sealed segments are copied, and have no such window |
//! | 12 | bit rot, misdirected or lost write at rest | checked before it is read for the first time in each opening: `Corrupt` with partition, offsets, file, position and flaw; the consumer decides to skip, never the library; others unaffected; `verify` finds it all |
//! | 13 | zeroed sector or page | as 12; not the end of the log |
//! | 14 | segment cut short, emptied, deleted by somebody else (first, middle, last) | the missing offsets are reported and not given again; the rest is served. What nothing can tell: after a process was killed, the loss of the end of the newest segment, from behind its last proven batch |
//! | 15 | segment of another partition, another log or an old backup in its place | refused as foreign, or its end as missing; reported, untouched. What nothing can tell: a segment of a fork or a backup that went its own way, if all else fits |
//! | 16 | catalog damaged or lost | rebuilt from the directories, reported; settings become the usual ones; data is never removed because nobody mentions it |
//! | 17 | committed offsets damaged or lost | reported by opening and by the first fetch of that group, until it seeks or commits; not silently "no position" |
//! | 18 | index missing, stale, wrong, of another segment | there is none on the disk; it is made from checked batches |
//! | 19 | hostile bytes anywhere | an error; bounded time and memory |
//! | 20 | second writer (another process, the same process, a stopped first one) | `Locked` at once, with the holder's number; never stolen; free at once after kill -9 |
//! | 21 | fork | in the child every call fails with `Forked`; dropping there does nothing; the parent is unharmed |
//! | 22 | reader in another process | sees whole records only; shows the promised part apart from the accepted part |
//! | 23 | clock steps, 1970, 2106 | order, offsets, recovery and waiting unaffected; a round of retention in which the wall clock disagrees with the other one removes nothing because of its age, and is counted |
//! | 24 | read-only directory, file system turned read-only | opening for writing refuses with the path; opening for reading creates nothing |
//! | 25 | symlink, directory or device in place of a file; file without permission | an error naming it; nothing written through it |
//! | 26 | stray files, extra bytes after the end | left alone if not ours; a tail past the end is cut and reported |
//! | 27 | files cut or rewritten by others while open | outside the contract (the kernel may kill the process); after restart as 12 and 14, other partitions unharmed |
//! | 28 | a disk that lies about flushing | outside the contract: what such a disk calls durable is not; what it took is reported if the log had been closed, and no other record is wrong or lost |
//! | 29 | truncation stopped, refused by the disk, or made beside readers, groups and senders | the tail is gone or it is not; it does not come back, whatever is damaged or cut later; no reader takes old records for new, no group skips what is sent behind the cut |
//! | 30 | compaction stopped, refused by the disk, or made beside readers, senders, truncation | the old segments or the new one; the last record of each key, and nothing that was deleted; damage is left as it is, and reported |
//!
//! Outside of the contract: a sector write that damages bytes beside it (powersafe overwrite is assumed), memory errors,
//! network file systems for writers.
//!
//! # What shows it
//!
//! The tests of each row, in `tests/promises`, of the last two in `tests/truncation.rs`, `tests/compaction.rs` and
//! `tests/golden.rs`: on a simulated machine where that can be, on real files, processes and
//! file systems where it must be. `TIDELOG_SWEEP=full cargo test --release --all-features --test promises` runs the sweeps
//! over every operation, byte and length.
//!
//! 1. `processes::kill_9_takes_nothing_that_was_accepted_and_the_next_opening_needs_no_help`,
//!    `crashes::the_death_of_a_process_takes_nothing_that_was_accepted_at_any_level`,
//!    `crashes::a_batch_is_there_as_a_whole_or_not_at_all`.
//! 2. `panics::a_panic_in_a_serializer_partitioner_or_iterator_leaves_the_record_unwritten_and_everybody_else_going_on`,
//!    `panics::a_panic_in_a_callback_takes_no_other_delivery_with_it`,
//!    `panics::a_panic_while_records_are_processed_commits_nothing_and_the_group_is_free`.
//! 3. `crashes::a_power_cut_takes_nothing_from_a_sync_topic_that_was_delivered_or_seen`,
//!    `crashes::a_power_cut_leaves_a_prefix_and_never_a_hole_at_the_other_levels`,
//!    `syncs::a_topic_that_syncs_at_intervals_keeps_what_the_last_completed_sync_covered`,
//!    `syncs::nothing_of_a_segment_is_promised_before_its_name_is_durable`,
//!    `crashes::a_group_that_had_committed_what_a_power_cut_took_is_pulled_back_and_the_report_says_so`.
//! 4. `sweeps::wherever_the_machine_stops_recovery_keeps_what_was_promised`,
//!    `crashes::what_recovery_cut_does_not_come_back`.
//! 5. `sweeps::many_power_cuts_in_a_row_also_during_recovery_come_to_the_same_as_one`.
//! 6. `sweeps::what_recovery_offers_after_the_death_of_a_process_survives_the_power_cut_that_follows`.
//! 7. `syncs::after_a_failed_sync_nothing_is_acknowledged_and_the_partition_takes_nothing_until_it_is_reopened`,
//!    `syncs::reopening_after_a_failed_sync_writes_again_what_it_keeps`,
//!    `sweeps::whatever_sync_fails_and_loses_pages_that_reads_still_show_what_was_promised_is_kept`,
//!    `sweeps::whatever_operation_fails_once_or_for_ever_what_was_promised_is_kept`,
//!    `processes::errors_that_strace_injects_into_real_system_calls_lose_nothing_that_was_delivered`.
//! 8. `syncs::a_page_that_is_lost_in_background_write_back_is_never_declared_durable`.
//! 9. `space::on_a_full_disk_send_fails_by_name_and_size_and_goes_on_once_there_is_room_without_reopening`,
//!    `space::a_segment_that_cannot_grow_is_as_it_was_and_grows_once_there_is_room`,
//!    `space::a_log_on_a_full_disk_opens_again_and_again_and_groups_move_on`,
//!    `space::a_group_commits_for_the_first_time_and_thousands_of_times_on_a_full_disk`,
//!    `space::whatever_allocation_or_name_finds_no_room_nothing_is_half_done`,
//!    `processes::a_real_file_system_that_is_full_raises_no_signal_and_goes_on_when_there_is_room`,
//!    `processes::a_log_whose_blocks_a_snapshot_shares_raises_no_signal_on_a_full_file_system`.
//! 10. `processes::a_limit_of_the_process_is_an_error_that_names_it_and_passes_when_it_is_lifted`.
//! 11. `processes::bytes_that_the_disk_does_not_give_are_an_error_of_that_read_and_not_the_end_of_the_process`,
//!     `processes::what_was_copied_to_be_read_is_there_whatever_becomes_of_the_file`,
//!     `processes::what_the_disk_does_not_give_is_an_error_of_a_copying_read`.
//! 12. `rot::a_flipped_byte_anywhere_in_a_partition_is_reported_and_no_wrong_record_is_read`,
//!     `rot::every_byte_of_a_segment_that_holds_something_is_watched_over`,
//!     `rot::corrupt_names_partition_offsets_file_and_position_and_the_consumer_decides_to_go_on`,
//!     `rot::a_page_of_another_file_is_none_of_this_one`,
//!     `rot::bytes_of_an_earlier_life_behind_newer_ones_are_not_taken_for_records`,
//!     `rot::a_batch_older_than_its_segment_is_none_whoever_looks`,
//!     `rot::what_reading_would_miss_verify_finds_and_repair_mends`.
//! 13. `rot::a_zeroed_sector_or_page_is_damage_and_not_the_end_of_the_log`,
//!     `rot::the_last_page_with_the_marker_of_the_closing_is_missed_too`.
//! 14. `rot::a_segment_cut_short_at_any_length_has_its_missing_offsets_reported_and_not_reused`,
//!     `rot::a_deleted_segment_first_middle_or_last_is_missed_and_the_rest_is_served`,
//!     `rot::a_partition_that_lost_all_its_segments_says_so_and_gives_no_offset_twice`,
//!     `rot::a_lost_end_goes_on_behind_all_that_can_have_been_given_since_the_log_was_closed`,
//!     `rot::a_rolled_segment_misses_its_successor_also_after_a_kill`,
//!     `rot::a_segment_that_is_gone_behind_a_rolled_one_takes_no_later_segment_with_it`,
//!     `rot::what_a_rolled_segment_lost_is_damage_also_if_nothing_else_says_that_it_was_synced`,
//!     `rot::a_marker_that_is_damaged_before_the_one_of_the_roll_does_not_hide_that_the_successor_is_gone`.
//! 15. `rot::a_segment_of_another_partition_topic_log_or_time_is_refused_reported_and_left_alone`,
//!     `rot::a_foreign_segment_behind_the_end_is_set_aside_and_reported_and_makes_way`,
//!     `rot::a_foreign_segment_with_the_name_of_an_offset_inside_of_a_batch_takes_nothing_from_it`,
//!     `rot::an_old_backup_in_the_place_of_a_segment_does_not_pass_for_it`.
//! 16. `lost_catalog::a_lost_catalog_is_rebuilt_from_the_directories_and_reported`,
//!     `lost_catalog::whatever_byte_of_the_catalog_is_damaged_no_record_and_no_commit_is_lost`,
//!     `lost_catalog::a_catalog_that_forgot_its_epoch_does_not_give_one_twice`,
//!     `lost_catalog::nothing_is_removed_because_nobody_mentions_it`,
//!     `lost_catalog::a_copy_of_a_topic_s_directory_is_reported_and_takes_nothing_from_the_topic`,
//!     `lost_catalog::a_log_without_its_catalog_is_a_log_all_the_same`,
//!     `lost_catalog::without_its_catalog_a_log_is_read_as_the_directories_say_and_nothing_is_written`.
//! 17. `groups::damaged_commits_are_reported_by_open_and_by_the_first_fetch_and_are_never_no_position`,
//!     `groups::commits_that_are_gone_with_their_page_file_or_directory_are_missed`,
//!     `groups::the_group_goes_on_once_somebody_says_where_and_is_not_asked_again`,
//!     `groups::a_damaged_file_of_a_group_is_never_written_over`.
//! 18. `rot::there_is_no_index_to_be_wrong_and_every_offset_is_found`.
//! 19. `rot::hostile_bytes_in_any_file_are_an_error_and_never_a_panic_or_a_wrong_record`,
//!     `rot::a_file_longer_than_any_segment_is_not_walked_over`.
//! 20. `processes::a_second_writer_is_refused_at_once_with_the_holder_named_and_never_steals_the_lock`.
//! 21. `processes::in_a_forked_child_every_call_is_refused_drops_do_nothing_and_the_parent_is_unharmed`.
//! 22. `processes::a_reader_in_another_process_sees_whole_records_and_the_promised_apart_from_the_accepted`,
//!     `processes::a_rolled_segment_that_its_writer_shortens_disturbs_no_reader_beside_it`.
//! 23. `clocks::order_offsets_and_recovery_do_not_depend_on_the_wall_clock`,
//!     `clocks::a_record_keeps_the_timestamp_that_it_was_given_whatever_the_clock_does_later`,
//!     `clocks::waiting_is_told_by_the_clock_that_never_steps`,
//!     `clocks::a_step_of_the_wall_clock_does_not_empty_the_log`.
//! 24. `files::a_read_only_file_system_refuses_writing_by_name_and_is_read_without_creating_anything`,
//!     `files::a_file_system_that_turns_read_only_is_an_error_that_names_the_file_and_resets_nothing`,
//!     `files::opening_for_reading_asks_the_disk_for_nothing_but_to_read`.
//! 25. `files::a_link_directory_or_pipe_in_place_of_a_file_is_an_error_that_names_it_and_nothing_goes_through`,
//!     `files::a_file_or_directory_without_permission_is_an_error_that_names_it`,
//!     `files::files_are_born_for_the_owner_alone`.
//! 26. `rot::stray_files_are_left_alone_and_bytes_behind_the_end_are_cut_and_reported`.
//! 27. `rot::a_segment_cut_short_at_any_length_has_its_missing_offsets_reported_and_not_reused`.
//! 28. `rot::what_a_disk_that_lies_about_flushing_took_is_missed_once_the_log_was_closed_and_else_no_record_is_wrong`: that
//!     much can be held, and no more.
//! 29. `truncation::wherever_the_machine_stops_the_log_is_cut_or_it_is_not`,
//!     `truncation::whatever_operation_fails_the_log_is_cut_or_it_is_not`,
//!     `truncation::what_is_cut_off_does_not_come_back_and_its_offsets_are_given_again`,
//!     `truncation::what_is_lost_behind_a_cut_is_missed`,
//!     `truncation::a_reader_in_another_process_takes_nothing_old_for_new`,
//!     `truncation::senders_and_readers_go_on_while_the_log_is_cut_under_them`,
//!     `truncation::wherever_the_machine_stops_no_group_skips_what_was_sent_behind_the_cut`,
//!     `truncation::whoever_joins_or_commits_right_behind_the_cut_skips_nothing`,
//!     `golden::what_came_behind_a_cut_in_a_compacted_segment_is_missed_when_nothing_says_what_it_is`,
//!     `golden::what_a_damaged_compacted_segment_stands_for_keeps_nobody_from_sending_behind_a_cut`,
//!     `compaction::what_a_compaction_could_not_remove_is_nobodys_successor_after_two_cuts`.
//! 30. `compaction::wherever_the_machine_stops_the_last_record_of_each_key_is_there`,
//!     `compaction::whatever_operation_fails_the_last_record_of_each_key_is_there`,
//!     `compaction::whatever_step_of_a_compaction_is_the_last_there_are_the_old_segments_or_the_new_one`,
//!     `compaction::a_cut_before_while_or_after_a_partition_is_compacted_takes_its_tail_and_nothing_else`,
//!     `compaction::a_tombstone_goes_when_its_time_is_over_and_not_before_also_after_an_opening`,
//!     `compaction::a_reader_in_another_process_goes_on_beside_compaction`,
//!     `compaction::what_is_damaged_is_left_as_it_is_and_compaction_says_so`,
//!     `compaction::damage_to_a_compacted_segment_takes_no_more_than_what_it_hit`,
//!     `compaction::the_latest_of_two_segments_of_which_one_is_gone_is_missed`,
//!     `compaction::a_partition_that_cannot_be_read_keeps_no_other_from_being_compacted`.
