-- What operators have settled goes after its time; these find it without reading the rest.
create index dead_letters_settled on dead_letters (last_failed_at) where state in ('resolved', 'discarded');
create index replays_ended on replays (updated_at) where state in ('finished', 'cancelled');
create index operator_audit_at on operator_audit using brin (at) with (pages_per_range = 32, autosummarize = on);
