-- A search as one statement. The settings hold where a reader may change settings; others have them in their profile.
CREATE OR REPLACE VIEW $view $on_cluster AS
$search
COMMENT $comment
