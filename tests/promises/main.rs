//! The promises of `tidelog::promises`, each broken on purpose. The table there names the tests of each row.
//!
//! The sweeps are bounded so that the whole takes a minute; `TIDELOG_SWEEP=full cargo test --release --all-features
//! --test promises` runs every case. What is drawn is drawn from seeds, which stand in the messages.
//!
//! A promise is only as good as the test that breaks. Each of these mistakes was planted by hand, in the function named,
//! and turned the test red (and others):
//!
//! | mistake                                                   | red                                                               |
//! |-----------------------------------------------------------|-------------------------------------------------------------------|
//! | acknowledge before sync (`Partition::sync_files`)         | `crashes::a_power_cut_takes_nothing_from_a_sync_topic_that_was_delivered_or_seen` |
//! | no directory sync at a roll (`Partition::sync_files`)     | `syncs::nothing_of_a_segment_is_promised_before_its_name_is_durable` |
//! | no directory sync at creation (`Catalog::create`)         | `sweeps::wherever_the_machine_stops_recovery_keeps_what_was_promised` |
//! | a sync error ignored (`Partition::lead_sync`)             | `syncs::after_a_failed_sync_nothing_is_acknowledged_and_the_partition_takes_nothing_until_it_is_reopened` |
//! | a sync retried (`Partition::sync_files`)                  | `syncs::reopening_after_a_failed_sync_writes_again_what_it_keeps` |
//! | no dirtying again (`Recovery::make_durable`)              | `syncs::a_page_that_is_lost_in_background_write_back_is_never_declared_durable` |
//! | stop at the first bad batch (`Hole::step_over`)           | `rot::corrupt_names_partition_offsets_file_and_position_and_the_consumer_decides_to_go_on` |
//! | no tail wipe (`Recovery::cut`)                            | `crashes::what_recovery_cut_does_not_come_back` |
//! | no epoch (`Walk::step_on`)                                | `rot::bytes_of_an_earlier_life_behind_newer_ones_are_not_taken_for_records` |
//! | length unchecked (`Batch::at`)                            | `rot::hostile_bytes_in_any_file_are_an_error_and_never_a_panic_or_a_wrong_record` |
//! | checksum unchecked (`Batch::verify`)                      | `rot::every_byte_of_a_segment_that_holds_something_is_watched_over` |
//! | no end recorded at closing (`Catalog::close`)             | `rot::the_last_page_with_the_marker_of_the_closing_is_missed_too` |
//! | identity of a segment unchecked (`read_head`)             | `rot::a_segment_of_another_partition_topic_log_or_time_is_refused_reported_and_left_alone` |
//! | a lost end goes on where it was cut (`Recovery::behind`)  | `rot::a_deleted_segment_first_middle_or_last_is_missed_and_the_rest_is_served` |
//! | no reserve (`Reserve::keep`)                              | `space::a_log_on_a_full_disk_opens_again_and_again_and_groups_move_on` |
//! | damaged commits believed (`Group::committed`)             | `groups::commits_that_are_gone_with_their_page_file_or_directory_are_missed` |
//! | no fork guard (`ForkGuard::is_child`)                     | `processes::in_a_forked_child_every_call_is_refused_drops_do_nothing_and_the_parent_is_unharmed` |

mod clocks;
mod crashes;
mod files;
mod groups;
mod lost_catalog;
mod panics;
mod processes;
mod rot;
mod shared;
mod space;
mod sweeps;
mod syncs;
